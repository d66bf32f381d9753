//go:build unix

package chaos

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/faultproxy"
)

var produces = []kmsg.Key{kmsg.Produce}

// losing checks that n messages arrive although each Produce request or the answer
// to it meets a fault.
func losing(t *testing.T, pipeline string, n int, bound time.Duration, fault faultproxy.Fault) {
	t.Helper()
	r := newRig(t, pipeline, 1)
	p := r.producer(t, nil)
	var worst time.Duration
	for range n {
		fault.Keys = produces
		i := r.proxy.Inject(fault)
		worst = max(worst, r.send(t, p, "k"))
		if i.Hits() == 0 {
			t.Fatal("the fault did not happen")
		}
	}
	atMost(t, "a message", worst, bound)
	r.close(t, p)
}

const (
	soon = room * 300 * time.Millisecond
	// Without a reset only a timeout tells that an answer will not come: the 15
	// seconds that a broker may take and the engine's 5.
	swallowed = 25 * time.Second
)

func TestFault_N1_ResetInProduceOnKafka(t *testing.T) {
	losing(t, "n1", 20, soon, faultproxy.Fault{Do: faultproxy.Cut})
}

func TestFault_N2_AckLostOnKafka(t *testing.T) {
	losing(t, "n2", 20, soon, faultproxy.Fault{Do: faultproxy.Cut, Response: true})
}

func TestFault_N2_AckSwallowedOnKafka(t *testing.T) {
	losing(t, "n2swallowed", 1, swallowed, faultproxy.Fault{Do: faultproxy.Drop, Response: true})
}

func TestFault_N3_RequestLostOnKafka(t *testing.T) {
	losing(t, "n3", 20, soon, faultproxy.Fault{Do: faultproxy.Cut, FIN: true})
}

func TestFault_N3_RequestSwallowedOnKafka(t *testing.T) {
	losing(t, "n3swallowed", 1, swallowed, faultproxy.Fault{Do: faultproxy.Drop})
}

func TestFault_N4_EndInsideResponseOnKafka(t *testing.T) {
	losing(t, "n4", 20, soon, faultproxy.Fault{Do: faultproxy.Cut, Response: true, Forward: 0.5, FIN: true})
}

func TestFault_N5_HalfARequestOnKafka(t *testing.T) {
	losing(t, "n5", 20, soon, faultproxy.Fault{Do: faultproxy.Cut, Forward: 0.5})
}
