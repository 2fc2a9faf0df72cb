// Command sessfs mounts PHP's session directory and looks after it.
//
// One file a verb; the verbs only parse, wire and exit. Called as mount.sessfs it is the helper of mount(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"sessfs"
	"sessfs/config"
)

// Exit codes: scripts rely on them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitUnreachable = 4
	exitMount       = 5
)

// coded is an error with an exit code of its own.
type coded struct {
	code int
	err  error
}

func (e coded) Error() string { return e.err.Error() }
func (e coded) Unwrap() error { return e.err }

func failf(code int, format string, args ...any) error {
	return coded{code, fmt.Errorf(format, args...)}
}

func exitCode(err error, parsed bool) int {
	var c coded
	var conf config.Errors
	var quiet said
	switch {
	case err == nil:
		return 0
	case errors.As(err, &quiet):
		return int(quiet)
	case errors.As(err, &c):
		return c.code
	case errors.As(err, &conf):
		return exitConfig
	case errors.Is(err, sessfs.ErrUnavailable):
		return exitUnreachable
	case !parsed:
		return exitUsage
	}
	return exitFailed
}

func main() {
	runtime.MemProfileRate = 4 << 20 // bytes; with Go's 512 kB every eighth session of 64 kB would be traced
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if filepath.Base(os.Args[0]) == "mount.sessfs" {
		err := mountHelper(ctx, os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "mount.sessfs:", err)
		}
		os.Exit(exitCode(err, true))
	}
	parsed := false
	err := rootCommand(&parsed).ExecuteContext(ctx)
	if quiet := said(0); err != nil && !errors.As(err, &quiet) {
		fmt.Fprintln(os.Stderr, "sessfs:", err)
		if !parsed {
			fmt.Fprintln(os.Stderr, "Run 'sessfs --help' for the commands.")
		}
	}
	os.Exit(exitCode(err, parsed))
}

// rootCommand is the whole command line. parsed becomes true once a command and its flags are understood.
func rootCommand(parsed *bool) *cobra.Command {
	root := &cobra.Command{
		Use:           "sessfs",
		Short:         "PHP sessions of many web hosts on shared memcached servers, behind a directory",
		SilenceErrors: true,
		SilenceUsage:  true,
		// What fails before this was called is wrong usage.
		PersistentPreRun: func(*cobra.Command, []string) { *parsed = true },
	}
	root.AddCommand(mountCommand(), umountCommand(), statusCommand(), topCommand(), lsCommand(), showCommand(), rmCommand(), unlockCommand(), rebalanceCommand(), sealCommand(), importCommand(), exportCommand(), doctorCommand(), upgradeCommand(), configCommand(), versionCommand())
	root.AddCommand(buildCommands...)
	return root
}

// buildCommands are of use to a build of the packages only: docs.go adds one, behind its build tag.
var buildCommands []*cobra.Command
