package backend

import (
	"fmt"

	"sessfs/internal/secret"
)

// SealFile is where a key is: a file as package secret names them.
type SealFile struct{ Name, File string }

// LoadSeal reads keys, the one that seals first, and checks that they can be used together. Nil: there are none.
func LoadSeal(files []SealFile, acceptPlain, writePlain bool) (*Seal, error) {
	if len(files) == 0 {
		return nil, nil
	}
	s := &Seal{AcceptPlain: acceptPlain, WritePlain: writePlain}
	for _, f := range files {
		text, err := secret.Read(f.File)
		if err != nil {
			return nil, fmt.Errorf("the key %q of seal.keys: %w", f.Name, err)
		}
		k, err := ParseSealKey(f.Name, text)
		if err != nil {
			return nil, fmt.Errorf("the key %q of seal.keys: %s: %w", f.Name, f.File, err)
		}
		s.Keys = append(s.Keys, k)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("seal.keys: %w", err)
	}
	return s, nil
}
