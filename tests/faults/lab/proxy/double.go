package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Request is a command of memcached's protocol.
type Request struct {
	Fields []string // of its line
	Body   []byte   // what is to be stored, without the end of line; nil: it has none
}

// Key is the key of a command that has one.
func (r Request) Key() string {
	if len(r.Fields) < 2 {
		return ""
	}
	return r.Fields[1]
}

// With is the same command with a field replaced.
func (r Request) With(at int, field string) Request {
	r.Fields = append([]string(nil), r.Fields...)
	r.Fields[at] = field
	return r
}

// Opaque is the end of an answer to a meta command: its opaque, where it has one.
func (r Request) Opaque() string {
	for _, f := range r.Fields[min(2, len(r.Fields)):] {
		if strings.HasPrefix(f, "O") {
			return " " + f
		}
	}
	return ""
}

// Double is a server that lies: it answers a command, with or without asking the real one.
type Double func(r Request, ask func(Request) ([]byte, error)) ([]byte, error)

// lie serves a connection command by command.
func (l *link) lie(double Double) {
	defer l.reset()
	in, out := bufio.NewReaderSize(l.client, chunkSize), bufio.NewReaderSize(l.server, chunkSize)
	ask := func(r Request) ([]byte, error) {
		line := strings.Join(r.Fields, " ") + "\r\n"
		if r.Body != nil {
			line += string(r.Body) + "\r\n"
		}
		if _, err := io.WriteString(l.server, line); err != nil {
			return nil, err
		}
		return readAnswer(out, r)
	}
	for {
		r, err := readRequest(in)
		if err != nil {
			return
		}
		answer, err := double(r, ask)
		if err != nil {
			return
		}
		if _, err := l.client.Write(answer); err != nil {
			return
		}
	}
}

// sizeField is where a command has the length of its body.
var sizeField = map[string]int{"set": 4, "add": 4, "replace": 4, "append": 4, "prepend": 4, "cas": 4, "ms": 2}

func readRequest(in *bufio.Reader) (Request, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return Request{}, err
	}
	r := Request{Fields: strings.Fields(line)}
	if len(r.Fields) == 0 {
		return r, errors.New("an empty command")
	}
	at, ok := sizeField[r.Fields[0]]
	if !ok {
		return r, nil
	}
	if at >= len(r.Fields) {
		return r, fmt.Errorf("%q has no length", r.Fields[0])
	}
	r.Body, err = readBody(in, r.Fields[at])
	return r, err
}

func readBody(in *bufio.Reader, size string) ([]byte, error) {
	n, err := strconv.Atoi(size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, err
	}
	return b[:n], nil
}

// readAnswer reads the whole answer to a command.
func readAnswer(in *bufio.Reader, r Request) ([]byte, error) {
	var all bytes.Buffer
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		all.Write(line)
		f := strings.Fields(string(line))
		if len(f) == 0 {
			return nil, errors.New("an empty line in an answer")
		}
		size := ""
		switch {
		case f[0] == "VA" && len(f) > 1:
			size = f[1]
		case f[0] == "VALUE" && len(f) > 3:
			size = f[3]
		}
		if size != "" {
			body, err := readBody(in, size)
			if err != nil {
				return nil, err
			}
			all.Write(append(body, "\r\n"...))
		}
		if !manyLines[r.Fields[0]] || f[0] == "END" || f[0] == "BUSY" || strings.HasSuffix(f[0], "ERROR") {
			return all.Bytes(), nil
		}
	}
}

// manyLines are the commands whose answers end with END.
var manyLines = map[string]bool{"get": true, "gets": true, "gat": true, "gats": true, "stats": true, "lru_crawler": true}
