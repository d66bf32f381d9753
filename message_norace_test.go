//go:build !race

package gracedb

const raceDetector = false
