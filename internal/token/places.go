package token

import (
	"fmt"
	"hash/maphash"
	"sync"
)

// WhatItSays returns a clause about tok: its claims and, if FindToken has found it,
// where.
func WhatItSays(tok string, d Description) string {
	says := "the token says " + d.Says
	if place := tokenPlaces.of(tok).Place; place != "" {
		says += " (found at " + place + ")"
	}
	return says
}

// NotePlace remembers where a token was found, for WhatItSays and WhereFound.
func NotePlace(f Found) { tokenPlaces.note(f) }

// WhereFound returns the place of a token that a Finder has found of late, and what its user
// should know; "" if none has.
func WhereFound(tok string) (place string, warnings []string) {
	f := tokenPlaces.of(tok)
	place = f.Place
	if f.Mode != 0 {
		place += fmt.Sprintf(" (mode %#o)", f.Mode.Perm())
	}
	return place, f.Warnings
}

// tokenPlaces knows where FindToken has found the tokens of late, for errors about them.
var tokenPlaces = foundPlaces{seed: maphash.MakeSeed()}

// A foundPlaces remembers the places of a few tokens by their hashes.
type foundPlaces struct {
	seed maphash.Seed
	mu   sync.Mutex
	at   map[uint64]Found // without the tokens
}

func (p *foundPlaces) note(f Found) {
	const most = 64
	hash := maphash.String(p.seed, f.Token)
	f.Token = ""
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil || len(p.at) >= most {
		p.at = make(map[uint64]Found)
	}
	p.at[hash] = f
}

func (p *foundPlaces) of(tok string) Found {
	hash := maphash.String(p.seed, tok)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[hash]
}
