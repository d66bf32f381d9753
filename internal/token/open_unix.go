//go:build unix

package token

import (
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// hasUID: files are named after, and belong to, numbered users.
const hasUID = true

// open opens a file without waiting for what it may be: a FIFO without a writer
// opens at once.
func open(path string, noFollow bool) (*os.File, error) {
	flags := os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
	if noFollow {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, flags, 0)
	if noFollow && err != nil && isLink(path) {
		return nil, errLink
	}
	return f, err
}

// isLink only chooses the text of an error: the refusal was O_NOFOLLOW's, whose
// error number differs between systems.
func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// checkOwner refuses a file that somebody else has put where ours should be.
func checkOwner(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return bad("its owner cannot be determined")
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return bad("it belongs to another user (uid " + strconv.Itoa(uid) + ")")
	}
	return nil
}

// hardLinks returns how many names the file has.
func hardLinks(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // of another type on other systems
	}
	return 1
}

// exposed reports whether others may read the file, or change it.
func exposed(mode fs.FileMode) bool { return mode.Perm()&0o026 != 0 }
