package cluster

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A walk goes through the bytes of one answer as they come, in whatever pieces, and keeps
// none of them. It ends in an error where the answer counts what it cannot hold, or more
// than is believed.
type walk struct {
	key      kmsg.Key
	flexible bool
	stack    []level
	skip     int64   // bytes of the current field that are passed over
	number   [5]byte // a length that is being read
	have     int     // bytes of it
	made     int64   // what the engine makes of the counts so far
	counts   [kindsCounted]int64
	throttle int32 // what the broker asked for
	over     bool  // it is more than maxThrottle
	under    bool
	fit      func(batches []byte) // changes batches, if the answer is fed at once; or nil
}

// A level is an array whose elements are being read, or the answer.
type level struct {
	of     []part
	next   int   // of these
	repeat int64 // how many more elements follow this one
}

func newWalk(r sentHead) walk {
	s := shapeOf(r)
	w := walk{key: r.key, flexible: s.flexible}
	if s.of != nil {
		w.stack = []level{{of: s.of}}
	}
	return w
}

// asked returns the throttle time that the broker asked for, if it is over maxThrottle.
func (w *walk) asked() (time.Duration, bool) {
	return time.Duration(w.throttle) * time.Millisecond, w.over
}

// feed goes through b, of which left bytes follow in the answer. It changes no byte but
// those of a throttle time over maxThrottle, and what w.fit does.
func (w *walk) feed(b []byte, left int64) error {
	for len(b) > 0 && len(w.stack) > 0 {
		if w.skip > 0 {
			n := min(w.skip, int64(len(b)))
			w.skip -= n
			b = b[n:]
			continue
		}
		top := &w.stack[len(w.stack)-1]
		if top.next == len(top.of) {
			if top.repeat == 0 {
				w.stack = w.stack[:len(w.stack)-1]
			} else {
				top.next = 0
				top.repeat--
			}
			continue
		}
		f := &top.of[top.next]
		switch f.is {
		case fixed:
			w.skip = f.size
			top.next++
			continue
		case throttle:
			w.lower(b)
		}
		n, whole := w.read(f.is, b[0])
		b = b[1:]
		if !whole {
			continue
		}
		top.next++
		if err := w.enter(f, n, int64(len(b))+left); err != nil {
			return err
		}
		if f.is == batches && w.fit != nil {
			w.fit(b[:w.skip])
		}
	}
	if left == 0 && !w.ended() {
		return fmt.Errorf("invalid answer to %s: it ends early", w.key.Name())
	}
	return nil
}

// ended reports whether all that is of interest has come.
func (w *walk) ended() bool {
	for _, at := range w.stack {
		if at.next < len(at.of) || at.repeat > 0 {
			return false
		}
	}
	return w.skip == 0 && w.have == 0
}

// lower makes the first byte of b, a byte of the throttle time, no larger than it is in
// maxThrottle, if those before it were not smaller already.
func (w *walk) lower(b []byte) {
	var most [4]byte
	binary.BigEndian.PutUint32(most[:], uint32(maxThrottle.Milliseconds()))
	w.throttle = w.throttle<<8 | int32(b[0])
	switch m := most[w.have]; {
	case w.have == 0 && b[0] > 0x7f: // negative, which is none
		w.under = true
	case w.over:
		b[0] = m
	case w.under:
	case b[0] > m:
		w.over, b[0] = true, m
	case b[0] < m:
		w.under = true
	}
}

// read takes another byte of a number, and returns the number if it is whole.
func (w *walk) read(is partKind, c byte) (n int64, whole bool) {
	w.number[w.have] = c
	w.have++
	varint := w.flexible && is != throttle || is == tags || is == tag || is == value
	size := 4
	if is == text {
		size = 2
	}
	switch {
	case varint && c > 0x7f && w.have < len(w.number), !varint && w.have < size:
		return 0, false
	case varint:
		u, _ := binary.Uvarint(w.number[:w.have])
		if n = int64(u); is != tags && is != tag && is != value {
			n-- // 0 is null
		}
	case is == text:
		n = int64(int16(binary.BigEndian.Uint16(w.number[:])))
	default:
		n = int64(int32(binary.BigEndian.Uint32(w.number[:])))
	}
	w.have = 0
	return n, true
}

// enter begins what the number n announces, which left bytes are to hold.
func (w *walk) enter(f *part, n, left int64) error {
	switch f.is {
	case text, batches, value:
		w.skip = max(n, 0)
		if n > left {
			return fmt.Errorf("invalid answer to %s: a field of %d bytes in the last %d", w.key.Name(), n, left)
		}
		if f.is == value && n > maxTagged {
			return fmt.Errorf("invalid answer to %s: a tagged field of %d bytes; at most %d are read", w.key.Name(), n, maxTagged)
		}
	case array, tags:
		of, cost := f.of, f.cost
		if f.is == tags {
			of, cost = tagFields, tagCost
		}
		if n <= 0 {
			return nil
		}
		w.counts[f.what] += n
		w.made += n * cost
		if err := w.judge(n, leastSize(of, w.flexible), left); err != nil {
			return err
		}
		w.stack = append(w.stack, level{of: of, repeat: n - 1})
	}
	return nil
}

func (w *walk) judge(n, least, left int64) error {
	switch {
	case n > left/least:
		return fmt.Errorf("invalid answer to %s: it counts %d elements in its last %d bytes", w.key.Name(), n, left)
	case w.counts[brokers] > maxBrokers:
		return fmt.Errorf("an answer to %s names %d brokers; at most %d are believed", w.key.Name(), w.counts[brokers], maxBrokers)
	case w.counts[topics] > maxTopics:
		return fmt.Errorf("an answer to %s names %d topics; at most %d are believed", w.key.Name(), w.counts[topics], maxTopics)
	case w.counts[partitions] > maxPartitions:
		return fmt.Errorf("an answer to %s names %d partitions; at most %d are believed", w.key.Name(), w.counts[partitions], maxPartitions)
	case w.made > maxMade:
		return fmt.Errorf("an answer to %s would take more than %d bytes", w.key.Name(), maxMade)
	}
	return nil
}

// tagCost is what the engine makes of a tagged field that it does not know.
const tagCost = 128

var tagFields = []part{{is: tag}, {is: value}}

// leastSize returns the fewest bytes that an element takes.
func leastSize(of []part, flexible bool) int64 {
	var least int64
	for _, f := range of {
		switch {
		case f.is == fixed:
			least += f.size
		case f.is == throttle:
			least += 4
		case flexible || f.is == tags || f.is == tag || f.is == value:
			least++
		case f.is == text:
			least += 2
		default:
			least += 4
		}
	}
	return max(least, 1)
}
