//go:build synctests

package faults

// rebuilt runs the tests of this package with the tag synctests, which is set.
func rebuilt() (ran bool, code int) { return false, 0 }
