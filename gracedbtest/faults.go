package gracedbtest

import (
	"net/http"

	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A Fault is what goes wrong with the services.
type Fault int

// The faults.
const (
	// TokenRefused: broker and GraceDB refuse the token, as if it had expired. Connections
	// to the broker are cut, so that everybody has to show it again.
	TokenRefused Fault = iota + 1
	// BrokerAway: the broker's connections are cut, and new ones refused.
	BrokerAway
	// ReservationRefused: GraceDB reserves no graceid: its answer is 500.
	ReservationRefused
	// AcknowledgementLost: the broker writes what is produced, and its answers do not arrive.
	// After FlushTimeout, or when ctx ends, the outcome is unknown.
	AcknowledgementLost
	// CreatedWithWarnings: GraceDB creates an event that is uploaded over HTTP, but cannot
	// tell anybody of it: 201 with warnings.
	CreatedWithWarnings
)

// Inject makes faults begin, which last until Heal. The supervisor's uploads are spared.
func (s *Services) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		switch f {
		case TokenRefused:
			s.gracedb.Script(gracetest.Fault{
				Status: http.StatusForbidden, Times: -1, Header: http.Header{"Content-Type": {"application/json"}},
				Body: `{"detail":"Authentication credentials were not provided."}`,
			})
			s.kafka.RefuseTokens(kafkatest.Refusal{})
			s.kafka.Drop(kafkatest.FIN)
		case BrokerAway:
			s.kafka.Refuse()
			s.kafka.Drop(kafkatest.RST)
		case ReservationRefused:
			s.gracedb.Script(gracetest.Fault{On: "reserve", Status: http.StatusInternalServerError, Times: -1, Body: "Server Error (500)"})
		case AcknowledgementLost:
			if s.lost == nil {
				s.lost = s.kafka.LoseAcks(-1, kafkatest.CutResponse)
			}
		case CreatedWithWarnings:
			s.warn.Store(true)
		default:
			s.tb.Errorf("gracedbtest: %d is no Fault", f)
		}
	}
}

// Heal ends all faults.
func (s *Services) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gracedb.Heal()
	s.kafka.AcceptTokens()
	if err := s.kafka.Accept(); err != nil {
		s.tb.Errorf("gracedbtest: %v", err)
	}
	if s.lost != nil {
		s.lost.Remove()
		s.lost = nil
	}
	s.warn.Store(false)
}

// warnings returns what GraceDB adds to its answer to an event that was uploaded.
func (s *Services) warnings(gracetest.Event) []string {
	if !s.warn.Load() {
		return nil
	}
	return []string{"Problem issuing an alert ([Errno 111] Connection refused)"}
}
