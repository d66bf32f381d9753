//go:build race

package gracedb

const raceDetector = true
