package produce

import (
	"reflect"
	"runtime"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// tellDone calls the done of d's message. It is not inlined, so that inDone finds it.
//
//go:noinline
func tellDone(d *delivery) { d.p.tell(d.owner, d.message(), d.err) }

var tellDoneEntry = reflect.ValueOf(tellDone).Pointer()

// inDone returns an error if the calling goroutine runs the done of a message, of
// whatever Producer: a message is settled only when its done has returned, and those of
// the same batch wait for it. Go does not say which goroutine this is, but
// which functions it is in; and asking here costs nothing where messages are sent.
func inDone(what string) error {
	pcs := make([]uintptr, 64)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			if f, more = frames.Next(); f.Entry == tellDoneEntry {
				return errs.New([]error{errs.Producer}, "kafka: %s was called by the done of a message, and would wait for that done to return: start a goroutine for it", what)
			}
		}
		if n < len(pcs) {
			return nil
		}
	}
}
