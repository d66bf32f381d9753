package consume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
)

// A lasting is what keeps a Consumer from reading until a person mends it, such as a group that it
// may not use. Poll tells of each such trouble when it begins, and again every
// logonce.RepeatAfter while it lasts; Check tells of all that last.
type lasting struct {
	mu sync.Mutex          // guards by
	by map[string]*trouble // by what it is about
}

// A trouble is why something does not work.
type trouble struct {
	err   error
	until time.Time // it is over then, unless it is met again
	said  time.Time // when Poll was to tell it last
}

// met notes that err is what is wrong with about, for as long as it is met again within
// stays each time, and reports whether Poll is to tell it now.
func (l *lasting) met(about string, err error, stays time.Duration) (tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.forget(now)
	t := l.by[about]
	if t == nil {
		if l.by == nil {
			l.by = make(map[string]*trouble)
		}
		t = &trouble{}
		l.by[about] = t
	}
	t.err, t.until = err, now.Add(stays)
	if tell = now.Sub(t.said) >= logonce.RepeatAfter; tell {
		t.said = now
	}
	return tell
}

// over notes that what begins with about works, and reports whether it did not.
func (l *lasting) over(about string) (was bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(time.Now())
	maps.DeleteFunc(l.by, func(key string, _ *trouble) bool {
		is := strings.HasPrefix(key, about)
		was = was || is
		return is
	})
	return was
}

// now returns all that is wrong as one error; nil if nothing is.
func (l *lasting) now() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(time.Now())
	const most = 3 // in the text
	var is []error
	var texts []string
	for _, about := range slices.Sorted(maps.Keys(l.by)) {
		err := l.by[about].err
		is = append(is, err)
		if len(texts) < most {
			texts = append(texts, errs.Reason(err))
		}
	}
	if is == nil {
		return nil
	}
	if more := len(is) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return errs.New(is, "%s", strings.Join(texts, "; "))
}

// forget drops what has not been met again. It is called with the lock held.
func (l *lasting) forget(now time.Time) {
	maps.DeleteFunc(l.by, func(_ string, t *trouble) bool { return !now.Before(t.until) })
}
