// Package graceid knows what a graceid is, for uploads over HTTP and for messages over
// Kafka. It starts no goroutine.
package graceid

import "strings"

// Form says what a graceid is, to stand behind "is not a graceid".
const Form = "letters and then digits are, such as G123456"

// Is reports whether id is up to 8 letters, and then up to 19 digits: what it is put into,
// such as a URL or a file name, stays what it is.
func Is(id string) bool {
	digits := strings.TrimLeftFunc(id, func(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' })
	letters := len(id) - len(digits)
	other := strings.TrimLeft(digits, "0123456789")
	return 1 <= letters && letters <= 8 && 1 <= len(digits) && len(digits) <= 19 && other == ""
}
