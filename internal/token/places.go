package token

import (
	"hash/maphash"
	"sync"
)

// WhatItSays returns a clause about tok: its claims and, if FindToken has found it,
// where.
func WhatItSays(tok string, d Description) string {
	says := "the token says " + d.Says
	if place := tokenPlaces.of(tok); place != "" {
		says += " (found at " + place + ")"
	}
	return says
}

// NotePlace remembers where a token was found, for WhatItSays.
func NotePlace(tok, place string) { tokenPlaces.note(tok, place) }

// tokenPlaces knows where FindToken has found the tokens of late, for errors about them.
var tokenPlaces = foundPlaces{seed: maphash.MakeSeed()}

// A foundPlaces remembers the places of a few tokens by their hashes.
type foundPlaces struct {
	seed maphash.Seed
	mu   sync.Mutex
	at   map[uint64]string
}

func (p *foundPlaces) note(tok, place string) {
	const most = 64
	hash := maphash.String(p.seed, tok)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil || len(p.at) >= most {
		p.at = make(map[uint64]string)
	}
	p.at[hash] = place
}

func (p *foundPlaces) of(tok string) string {
	hash := maphash.String(p.seed, tok)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[hash]
}
