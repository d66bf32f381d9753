package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxFile     = 64 << 10 // bytes of a file
	maxEntries  = 1000     // of a directory of credentials
	maxCreds    = 32       // tokens of such a directory
	readTimeout = 2 * time.Second
	youngAge    = time.Second // a file changed more recently may be half written
)

var (
	errLink = bad("it is a symbolic link, which anybody could have made")
	// Whoever may not read a file of another user's may link to it, where the system does
	// not forbid that, and so choose which of that user's tokens is sent.
	errHardLink = bad("it has another name (a hard link), which anybody could have made")
	errSilent   = errors.New("no answer within 2s (a dead mount?)")
	errDir      = bad("it is a directory")
	errSpecial  = bad("it is not a regular file")
)

func tooLong(limit int64) error {
	return bad(fmt.Sprintf("longer than such a file can be (%d KiB)", limit>>10))
}

// A content is what one reading of a file or directory gave.
type content struct {
	text    string
	settled bool // the file was not changed lately, nor while it was read
	mode    fs.FileMode
	names   []string // of a directory
}

// otherReadings are those of files that hold no tokens.
var otherReadings readings

// ReadFile reads a file that holds no token as carefully as one that does: only a
// regular file, of at most limit bytes, for no longer than ctx and 2 seconds. It also
// returns the file's mode. Its error does not hold the path.
func ReadFile(ctx context.Context, path string, limit int64) ([]byte, fs.FileMode, error) {
	c, err := otherReadings.do(ctx, path, func() (content, error) { return readFile(path, rules{limit: limit}) })
	return []byte(c.text), c.mode, err
}

// WritableByOthers reports whether users other than the owner and the group may
// change a file of this mode.
func WritableByOthers(mode fs.FileMode) bool { return hasUID && mode.Perm()&0o002 != 0 }

// readFile reads a file once. All checks are made on the open file, so that it cannot
// be exchanged between check and use.
func readFile(path string, r rules) (content, error) {
	limit := cmp.Or(r.limit, maxFile)
	if r.ifShared {
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return content{}, errno(err)
		}
		r.noFollow = r.noFollow || WritableByOthers(dir.Mode())
	}
	f, err := open(path, r.noFollow)
	if err != nil {
		return content{}, errno(err)
	}
	defer f.Close()
	before, err := f.Stat()
	switch {
	case err != nil:
		return content{}, errno(err)
	case before.IsDir():
		return content{}, errDir
	case !before.Mode().IsRegular():
		return content{}, errSpecial
	case before.Size() > limit:
		return content{}, tooLong(limit)
	}
	if r.noFollow && hardLinks(before) > 1 {
		return content{}, errHardLink
	}
	if r.ours {
		if err := checkOwner(before); err != nil {
			return content{}, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return content{}, errno(err)
	}
	if int64(len(data)) > limit {
		return content{}, tooLong(limit)
	}
	after, err := f.Stat()
	if err != nil {
		return content{}, errno(err)
	}
	// A time in the future (another machine's clock) counts as lately: it costs
	// a second reading, while the opposite mistake could cost a token.
	settled := time.Since(after.ModTime()) >= youngAge && after.ModTime().Equal(before.ModTime()) &&
		after.Size() == before.Size() && after.Size() == int64(len(data))
	return content{text: string(data), settled: settled, mode: after.Mode()}, nil
}

// readCreds returns the paths of the *.use files in dir, sorted.
func readCreds(dir string) (content, error) {
	f, err := open(dir, false)
	if err != nil {
		return content{}, errno(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return content{}, bad("it is not a directory")
	}
	names, err := f.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return content{}, errno(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return name[0] == '.' || !strings.HasSuffix(name, ".use")
	})
	slices.Sort(names)
	names = names[:min(len(names), maxCreds)]
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return content{names: names}, nil
}

// errno strips the path from an error of package os: what a variable names as a
// path may be a token put there by mistake.
func errno(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// A reading is one reading that has been started.
type reading struct {
	done chan struct{}
	content
	err error
}

// readings bounds each wait for the file system, which cannot be interrupted. A
// reading that was given up is picked up again by the next call for the same
// path, so that a dead mount holds one goroutine per path and not one per call.
type readings struct {
	mu    sync.Mutex
	stuck map[string]*reading
}

func (rs *readings) do(ctx context.Context, path string, read func() (content, error)) (content, error) {
	rs.mu.Lock()
	r := rs.stuck[path]
	rs.mu.Unlock()
	if r == nil {
		r = &reading{done: make(chan struct{})}
		go func() {
			r.content, r.err = read()
			rs.mu.Lock()
			defer rs.mu.Unlock()
			close(r.done)
			if rs.stuck[path] == r {
				delete(rs.stuck, path)
			}
		}()
	}
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	err := errSilent
	select {
	case <-r.done:
		return r.content, r.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	select {
	case <-r.done:
		return r.content, r.err
	default:
	}
	if rs.stuck == nil {
		rs.stuck = make(map[string]*reading)
	}
	if rs.stuck[path] == nil {
		rs.stuck[path] = r
	}
	return content{}, err
}
