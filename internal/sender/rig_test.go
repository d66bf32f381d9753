package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

const rigTopic = "igwn.gracedb" // as withContract makes it, of one partition

// A rig is a Sender, and all that it has told.
type rig struct {
	t      *testing.T
	sender *Sender

	mu       sync.Mutex
	state    State // what Describe says
	err      error
	asked    int // so many times
	outcomes map[*Record][]Outcome
}

// newRig returns a Sender. Without a client, its partitions must be held.
func newRig(t *testing.T, client *kgo.Client, far bool) *rig {
	t.Helper()
	r := &rig{
		t: t, outcomes: make(map[*Record][]Outcome),
		state: State{ID: [16]byte{1}, Partitions: []Leader{{0, 0}}},
	}
	r.sender = New(Config{
		Client: client, Describe: r.describe, Settle: r.settle, Waits: func(string, int32, error) {},
		NoConnection: func(error) bool { return false }, Far: func() bool { return far },
		Compresses: func(int) bool { return false }, Compress: func(_, _ []byte) []byte { return nil },
		Limit: 1 << 20, MaxBatch: 1 << 20, AskTimeout: time.Second,
	})
	t.Cleanup(r.sender.Close)
	return r
}

// withRig gives f a Sender that is connected to a cluster in virtual time.
func withRig(t *testing.T, cfg kafkatest.Config, far bool, f func(*testing.T, *rig, *kafkatest.Cluster)) {
	t.Helper()
	withContract(t, cfg, func(t *testing.T, c *contract) {
		c.discover()
		r := newRig(t, c.client, far)
		leads := c.cluster.Kfake().PartitionInfo(rigTopic, 0)
		r.state = State{ID: c.cluster.Kfake().TopicInfo(rigTopic).TopicID, Partitions: []Leader{{leads.Leader, leads.Epoch}}}
		f(t, r, c.cluster)
		r.sender.Close()
		synctest.Wait()
	})
}

func (r *rig) describe(context.Context, string) (State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.state, r.err
}

func (r *rig) settle(record *Record, o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[record] = append(r.outcomes[record], o)
}

// say makes Describe say this from now on.
func (r *rig) say(state State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.err = state, err
}

// learn tells the Sender what Describe would say.
func (r *rig) learn() {
	r.mu.Lock()
	now := r.state
	r.mu.Unlock()
	r.sender.Learn(rigTopic, now)
}

// questions returns how often the Sender has asked about the topic.
func (r *rig) questions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// record returns a record that is not sent yet; all have the same key.
func record(value string, padding int) *Record {
	return &Record{Topic: rigTopic, Key: []byte("S190425z"), Value: append([]byte(value), make([]byte, padding)...)}
}

func (r *rig) send(value string) *Record {
	one := record(value, 0)
	r.sender.Send(one)
	return one
}

// told returns what was told of a record so far: at most one outcome.
func (r *rig) told(one *Record) *Outcome {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch all := r.outcomes[one]; len(all) {
	case 0:
		return nil
	case 1:
		return &all[0]
	default:
		r.t.Fatalf("settled %d times: %v", len(all), all)
		return nil
	}
}

// want checks what was told of a record.
func (r *rig) want(one *Record, result Result, err error) {
	r.t.Helper()
	switch o := r.told(one); {
	case o == nil:
		r.t.Errorf("%.8s is not settled", one.Value)
	case o.Result != result || !errors.Is(o.Err, err):
		r.t.Errorf("%.8s: %v, %v; want %v, %v", one.Value, o.Result, o.Err, result, err)
	}
}

// must waits until a record is in the log.
func (r *rig) must(one *Record) {
	r.t.Helper()
	for range 1000 {
		if r.told(one) != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.want(one, InLog, nil)
}

// held returns the Sender's topic, of one partition that sends nothing by itself.
func (r *rig) held() (*topic, *partition) {
	r.learn()
	t := r.sender.lock(rigTopic)
	defer t.mu.Unlock()
	p := t.parts[0]
	p.recovering, p.comingBack = true, true
	return t, p
}

// logged returns the values in the log, each up to its padding.
func logged(t *testing.T, c *kafkatest.Cluster) (values []string) {
	t.Helper()
	records, err := c.Records(rigTopic)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range records {
		value := one.Value
		if end := slices.Index(value, 0); end >= 0 {
			value = value[:end]
		}
		values = append(values, string(value))
	}
	return values
}

// release ends what held has begun.
func (r *rig) release(p *partition) {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	p.recovering, p.comingBack = false, false
	r.sender.advanceLocked(p)
}
