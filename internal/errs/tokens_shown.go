package errs

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// tokensShown knows the tokens that this program has shown to brokers and servers of
// late. One for all clients: what one peer was shown, another may repeat, and errors
// are made where nobody knows which token they are about.
var tokensShown = shownTokens{seed: maphash.MakeSeed()}

// NoteToken adds a token to those shown, before anybody is.
func NoteToken(token string) { tokensShown.note(token) }

// A shownTokens remembers tokens by the hashes of their pieces, from which nobody gets a
// token back. It is safe for concurrent use.
type shownTokens struct {
	seed maphash.Seed

	mu     sync.RWMutex
	recent []shownToken   // the last one shown is the last
	pieces map[uint64]int // by hash: in how many of recent; guarded by mu
	count  int            // of all pieces of recent
	// clean are texts that hold no piece, nor anything else like a token: thousands of
	// messages may fail for one reason. It is made anew with each new token.
	clean map[string]struct{}
	epoch int // how often it was
}

// A textSpan is a part of a text.
type textSpan struct{ start, end int }

// A shownToken is a token by its hash, and those of its pieces.
type shownToken struct {
	hash   uint64
	pieces []uint64
}

const (
	// pieceLength is how many letters of a token make a piece of it: fewer could stand in
	// a text by chance, and are of no use to anybody.
	pieceLength = 12
	// Tokens and pieces of them that are remembered, besides the last token shown.
	maxShown       = 32
	maxShownPieces = 64 << 10
)

// note adds a token, which must not have been shown to anybody yet.
func (t *shownTokens) note(token string) {
	hash := maphash.String(t.seed, token)
	t.mu.RLock()
	last := len(t.recent) > 0 && t.recent[len(t.recent)-1].hash == hash
	t.mu.RUnlock()
	if last {
		return
	}
	s := shownToken{hash: hash}
	t.eachPiece(token, func(piece uint64, _ textSpan) { s.pieces = append(s.pieces, piece) })
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.recent, func(known shownToken) bool { return known.hash == hash }); i >= 0 {
		t.recent = append(slices.Delete(t.recent, i, i+1), s)
		return
	}
	if t.pieces == nil {
		t.pieces = make(map[uint64]int)
	}
	for _, piece := range s.pieces {
		t.pieces[piece]++
	}
	t.recent = append(t.recent, s)
	t.clean = nil
	t.epoch++
	t.count += len(s.pieces)
	for len(t.recent) > maxShown || len(t.recent) > 1 && t.count > maxShownPieces {
		t.forget(t.recent[0])
		t.recent = slices.Delete(t.recent, 0, 1)
	}
}

// What is remembered of texts without tokens: by far more than one outage makes.
const (
	maxClean       = 256
	maxCleanLength = 2 << 10
)

// isClean reports whether s is known to hold no token; epoch is for noteClean.
func (t *shownTokens) isClean(s string) (clean bool, epoch int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, clean = t.clean[s]
	return clean, t.epoch
}

// noteClean notes that s holds none of the tokens that were shown by epoch.
func (t *shownTokens) noteClean(s string, epoch int) {
	if len(s) > maxCleanLength {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if epoch != t.epoch {
		return
	}
	if t.clean == nil || len(t.clean) >= maxClean {
		t.clean = make(map[string]struct{})
	}
	t.clean[strings.Clone(s)] = struct{}{}
}

// forget takes back what note did for s. t.mu is held.
func (t *shownTokens) forget(s shownToken) {
	t.count -= len(s.pieces)
	for _, piece := range s.pieces {
		if t.pieces[piece]--; t.pieces[piece] == 0 {
			delete(t.pieces, piece)
		}
	}
}

// eachPiece calls f with the hash of each piece in s, and where it is. What is no letter
// of a token is passed over, and so is whether a letter is a capital: what parts a token,
// or changes the case of one that was made a host name, does not hide it.
func (t *shownTokens) eachPiece(s string, f func(piece uint64, at textSpan)) {
	if len(s) < pieceLength {
		return
	}
	letters := make([]byte, 0, len(s))
	places := make([]textSpan, 0, len(s))
	for i := 0; i < len(s); {
		letter, width := nextLetter(s, i)
		if letter != 0 {
			letters = append(letters, letter)
			places = append(places, textSpan{i, i + width})
		}
		i += width
	}
	for i := 0; i+pieceLength <= len(letters); i++ {
		f(maphash.Bytes(t.seed, letters[i:i+pieceLength]), textSpan{places[i].start, places[i+pieceLength-1].end})
	}
}

// in returns where s holds pieces of tokens, in order.
func (t *shownTokens) in(s string) (found []textSpan) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.pieces) == 0 {
		return nil
	}
	t.eachPiece(s, func(piece uint64, at textSpan) {
		if t.pieces[piece] > 0 {
			found = append(found, at)
		}
	})
	return found
}
