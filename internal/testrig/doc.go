// Package testrig makes what tests of this module begin with: an embedded broker, a GraceDB,
// and clients of them, all of which end with the test. Tests in the root and the faults use it.
package testrig
