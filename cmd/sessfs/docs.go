//go:build docs

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"sessfs/config"
	"sessfs/internal/manual"
)

// The packages' manual pages and completions come from the commands themselves:
//
//	go run -tags docs -ldflags "-X main.version=…" ./cmd/sessfs docs config.yaml DIR
//
// What is installed is built without the tag, and without the generators.
func init() {
	buildCommands = append(buildCommands, &cobra.Command{
		Use:    "docs SAMPLE DIR",
		Short:  "Write the manual pages and the completions to a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE:   func(cmd *cobra.Command, args []string) error { return writeDocs(cmd.Root(), args[0], args[1]) },
	})
}

func writeDocs(root *cobra.Command, sample, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	date, err := buildDate()
	if err != nil {
		return err
	}
	noGeneratedTag(root)
	header := &doc.GenManHeader{Section: "8", Date: &date, Source: "sessfs " + version, Manual: "sessfs"}
	if err := doc.GenManTreeFromOpts(root, doc.GenManTreeOptions{Header: header, Path: dir, CommandSeparator: "-"}); err != nil {
		return err
	}
	if err := mendPages(dir, date); err != nil {
		return err
	}
	text, err := os.ReadFile(sample)
	if err != nil {
		return err
	}
	page, err := manual.Config(string(text), config.Keys(), date, version)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sessfs.yaml.5"), []byte(page), 0o644); err != nil {
		return err
	}
	if err := addExitStatus(filepath.Join(dir, "sessfs.8")); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{
		"sessfs.bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"_sessfs":     root.GenZshCompletion,
		"sessfs.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
	} {
		if err := writeTo(filepath.Join(dir, name), write); err != nil {
			return err
		}
	}
	return nil
}

func mendPages(dir string, date time.Time) error {
	pages, err := filepath.Glob(filepath.Join(dir, "*.8"))
	if err != nil {
		return err
	}
	for _, file := range pages {
		page, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(manual.Command(string(page), date)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func writeTo(file string, write func(io.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Close()
}

// noGeneratedTag: cobra would name itself as the author of the pages.
func noGeneratedTag(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, c := range cmd.Commands() {
		noGeneratedTag(c)
	}
}

// addExitStatus appends what cobra knows nothing of to the page of sessfs itself.
func addExitStatus(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprint(f, ".SH EXIT STATUS\n")
	for _, s := range []struct {
		code int
		text string
	}{
		{0, "Done."}, {exitFailed, "Failed."}, {exitUsage, "Wrong usage."}, {exitConfig, "The configuration has an error, which is named with its line."},
		{exitUnreachable, "Cache servers do not answer."}, {exitMount, "Mounting failed."},
	} {
		fmt.Fprintf(f, ".TP\n.B %d\n%s\n", s.code, s.text)
	}
	fmt.Fprintf(f, ".SH FILES\n.TP\n.I %s\nThe configuration, see\n.BR sessfs.yaml (5).\n.TP\n.I %s\nThe control socket, and what is kept until the next boot.\n", defaultConfig, runDir)
	fmt.Fprintf(f, ".TP\n.I %s\nThe log of a daemon in the background where there is no syslog.\n", fallbackLog)
	return f.Close()
}

// buildDate is SOURCE_DATE_EPOCH, so that a build can be repeated, or now.
func buildDate() (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}
