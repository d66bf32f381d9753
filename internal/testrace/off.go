//go:build !race

// Package testrace says whether a test runs under the race detector, which makes code ten times
// slower and makes allocations of its own.
package testrace

// Enabled is whether the race detector is on.
const Enabled = false
