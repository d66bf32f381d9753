//go:build unix

package chaos

// childVariable makes the test binary a consumer of a group, in a process that can
// be killed. It names a file with what that has to know.
const childVariable = "GRACEDB_CHAOS_CHILD"

func runChild(string) int { return 0 }
