// Package savefile writes files that appear whole or not at all, under names that others
// chose, without overwriting anything. It starts no goroutine and keeps no state.
package savefile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Lengths in bytes. The file systems of all systems take 255.
const (
	maxID   = 64
	maxFile = 100 // GraceDB takes no longer file names
)

// Name returns id and the last element of file as one element of a path, which is neither
// hidden nor a device. Of what others chose letters of ASCII, digits and ._+=@,- stay, and
// anything else becomes an underscore; of a file name that is too long the end stays, which
// says of what kind the file is.
func Name(id, file string) string {
	file = file[strings.LastIndexAny(file, `/\`)+1:]
	if strings.Trim(file, ". ") == "" {
		file = "event"
	}
	id = clean(id)
	id = id[:min(len(id), maxID)]
	file = clean(file)
	file = file[max(0, len(file)-maxFile):]
	name := id + "-" + file
	if name[0] == '.' || name[0] == '-' {
		name = "_" + name[1:]
	}
	if strings.HasSuffix(name, ".") { // which Windows drops
		name = name[:len(name)-1] + "_"
	}
	return name
}

func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("._+=@,-", r):
			return r
		}
		return '_'
	}, s)
}

// Save writes data to a file of that name, which is one of Name's, in dir, and returns its
// path. A file of that name that holds data is success. If it holds anything else, or is no
// file, the error is fs.ErrExist.
func Save(dir, name string, data []byte) (string, error) {
	return save(dir, name, data, (*os.Root).Link)
}

// linker is Root.Link, or what stands for it in a test.
type linker func(root *os.Root, oldname, newname string) error

func save(dir, name string, data []byte, link linker) (path string, err error) {
	path = filepath.Join(dir, name)
	defer func() {
		if err != nil && !errs.IsOurs(err) {
			err = errs.New([]error{err}, "saving %s: %s", errs.Clean(path), errs.Reason(err))
		}
		if err != nil {
			path = ""
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return path, err
	}
	defer func() { _ = root.Close() }()
	if there, err := holds(root, name, data); there || !errors.Is(err, fs.ErrNotExist) {
		return path, exists(path, there, err)
	}
	temp := ".gracedb-" + rand.Text() + ".tmp"
	defer func() { _ = root.Remove(temp) }()
	if err := write(root, temp, data); err != nil {
		return path, err
	}
	err = link(root, temp, name)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = rename(root, temp, name) // FAT has no hard links, nor have many of FUSE
	}
	if errors.Is(err, fs.ErrExist) { // another Save was faster
		there, err := holds(root, name, data)
		return path, exists(path, there, err)
	}
	if err != nil {
		return path, err
	}
	return path, syncDir(root)
}

// exists returns what Save says of a file that is there.
func exists(path string, same bool, err error) error {
	switch {
	case same:
		return nil
	case err != nil:
		return errs.New([]error{fs.ErrExist, err}, "saving %s: it is there, and cannot be compared: %s", errs.Clean(path), errs.Reason(err))
	}
	return errs.New([]error{fs.ErrExist}, "saving %s: it is there, with another content, and stays: save to another directory", errs.Clean(path))
}

// write writes a file of its own to the disk.
func write(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// holds reports whether a file is one with just this content. What is no file is not opened:
// a FIFO would be waited for, and a link would lead elsewhere.
func holds(root *os.Root, name string, data []byte) (bool, error) {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false, err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|noWait, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		return false, err
	}
	part := make([]byte, 64<<10)
	for {
		n, err := f.Read(part)
		if n > len(data) || !bytes.Equal(part[:n], data[:n]) {
			return false, nil
		}
		data = data[n:]
		switch {
		case errors.Is(err, io.EOF):
			return len(data) == 0, nil
		case err != nil:
			return false, err
		}
	}
}

// rename gives temp its name where there are no hard links. Since Rename replaces what is
// there, Saves of one name take turns: who has made the claim looks, renames and removes it.
// Other programs do not heed claims; nor are there others that write such names.
func rename(root *os.Root, temp, name string) error {
	claim := "." + name + ".claim"
	const tries, pause = 200, 10 * time.Millisecond // for others, who need less than one
	for try := 1; ; try++ {
		f, err := root.OpenFile(claim, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			_ = f.Close()
			break
		}
		switch {
		case !errors.Is(err, fs.ErrExist):
			return err
		case try == tries:
			return errs.New(nil, "saving %s: %s is there: remove it if no program is saving to this directory", name, claim)
		}
		time.Sleep(pause)
	}
	defer func() { _ = root.Remove(claim) }()
	switch _, err := root.Lstat(name); {
	case err == nil:
		return fs.ErrExist
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return root.Rename(temp, name)
}

// syncDir makes the names of root's files outlast a crash of the machine, where that can be
// asked for.
func syncDir(root *os.Root) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		err = nil // as some file systems say
	}
	return errors.Join(err, dir.Close())
}
