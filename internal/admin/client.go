package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"sessfs"
)

// Client asks a daemon over its socket.
type Client struct {
	path string
	http http.Client
}

// Dial makes a client for the socket at path; it connects with the first request.
func Dial(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}
	return c
}

// Socket is the path of the socket.
func (c *Client) Socket() string { return c.path }

// Get asks and decodes the answer into out. Errors wrap sessfs.ErrUnavailable where the daemon said that its servers
// are.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.do(ctx, http.MethodGet, path, query, out)
}

// Delete is Get with DELETE.
func (c *Client) Delete(ctx context.Context, path string, query url.Values, out any) error {
	return c.do(ctx, http.MethodDelete, path, query, out)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, out any) error {
	res, err := c.send(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return decodeFailure(res.Body)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("the daemon's answer over %s: %w", c.path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "sessfs", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no daemon answers at %s: is it mounted? (sessfs mount; a socket elsewhere: --config or the mount point)", c.path)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s: only root may do this, or the members of admin.group where the configuration names one", c.path)
	case err != nil:
		return nil, fmt.Errorf("asking the daemon at %s: %w", c.path, err)
	}
	return res, nil
}

func decodeFailure(r io.Reader) error {
	var f failure
	if err := json.NewDecoder(r).Decode(&f); err != nil || f.Error == "" {
		return errors.New("the daemon refused without saying why")
	}
	return f.err()
}

func (f failure) err() error {
	if f.Unavailable {
		return unavailable(f.Error)
	}
	return errors.New(f.Error)
}

// unavailable is the daemon's own text, which says already that its servers are.
type unavailable string

func (u unavailable) Error() string { return string(u) }
func (u unavailable) Unwrap() error { return sessfs.ErrUnavailable }

// List calls fn for each session, in bounded memory.
func (c *Client) List(ctx context.Context, fn func(Entry) error) error {
	res, err := c.send(ctx, http.MethodGet, "/sessions", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		var line struct {
			Entry
			failure
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("the daemon's list: %w", err)
		}
		if line.Error != "" {
			return line.err()
		}
		if err := fn(line.Entry); err != nil {
			return err
		}
	}
	return lines.Err()
}
