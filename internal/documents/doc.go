// Package documents holds what this repository's documents say against its code and its
// files. It has only tests.
package documents
