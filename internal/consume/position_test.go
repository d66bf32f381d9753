package consume

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A member has done more of a partition than its group has heard. What another stored
// meanwhile under a later leader is behind a loss of data, and counts.
func TestAdjustAfterALoss(t *testing.T) {
	c := &Consumer{positions: newPositions()}
	c.positions.at("topic", 0).done = kgo.EpochOffset{Epoch: 5, Offset: 100}
	stored := kgo.NewOffset().At(60).WithEpoch(6)
	got, err := c.onOffsetsFetched(t.Context(), map[string]map[int32]kgo.Offset{"topic": {0: stored}})
	if at := got["topic"][0].EpochOffset(); err != nil || at.Offset != 60 {
		t.Errorf("continues at %v, %v", at, err)
	}
}

func TestAhead(t *testing.T) {
	p := newPositions()
	if got := p.ahead(); got != "" {
		t.Errorf("%q", got)
	}
	for part := range int32(5) {
		p.at("b", part).next = int64(part) * 10
	}
	p.at("a", 7).next = 1
	want := "; next to be read: topic a partition 7 offset 1, topic b partition 0 offset 0, topic b partition 1 offset 10, 3 more"
	if got := p.ahead(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
