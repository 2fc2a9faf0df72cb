package backend

import "errors"

import "time"

type classic struct{ wire }

func newClassic(s *server) *classic              { return &classic{} }
func (*classic) close()                          {}
func (*classic) try(string, time.Duration) error { return errors.New("later") }
