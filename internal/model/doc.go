// Package model tries the protocol of docs/replicas.md in a small world.
package model
