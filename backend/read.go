package backend

import (
	"context"

	"sessfs"
)

// Read implements sessfs.Backend.
func (c *Cluster) Read(ctx context.Context, id sessfs.ID) (*sessfs.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := c.operation(id)
	list, err := o.read()
	if err != nil {
		return nil, err
	}
	return o.snapshot(list)
}
