package sender

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This is the model check of partition: all histories of a few records and a few faults are
// played, with every order of what may happen at the same time, and each is judged at its
// end. What is real is partition, topic and judge; what run.go does between them is done
// here, without goroutines, and the broker is a model of Kafka's (model_broker_test.go).
//
// A history is a list of choices. It is played from its beginning each time, and given up
// where it comes to a state that was there before: what follows from that is known.

var modelLong = flag.Bool("model-long", false, "TestModel: one more fault in each history (minutes)")

// A model is what may happen in its histories.
type model struct {
	name    string
	records int  // sent, one by one, but
	first   int  // so many at once in the beginning
	faults  int  // of all kinds
	far     bool // several batches in flight
	batch   int  // how many records fit a batch
	zip     bool // batches are compressed, which takes its time
	kinds   string
	setUp   func(*play)
	wrong   wrong
}

// wrong is what TestModelSees does otherwise than the code; all of it is nil or false
// elsewhere.
type wrong struct {
	recover  func(s *partition, then func() []settlement) []settlement
	write    func(b *batch, wrote func() bool) bool
	end      func(try *modelTry)
	withdraw func(r *Record, withdraw func() []settlement) []settlement
	advance  func(s *partition)
	eager    bool // issues a batch before the one before it is written
	blind    bool // does not look at what failed while it looked for a leader
}

// Kinds of faults.
const (
	losses      = "lose connection,end unwritten,not connected,"
	withdrawals = "withdraw,"
	answers     = "before append,after append,unexplained,"
	refusals    = "invalid record,too large,"
	closes      = "close,"
	leaders     = "leader,"
	remakes     = "remake,"
)

var models = []model{
	{name: "lost connections", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers},
	{name: "three in flight", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers + refusals, setUp: func(p *play) { p.begin(0, 7) }},
	{name: "three in flight, withdrawals", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers + withdrawals, setUp: func(p *play) { p.begin(0, 7) }},
	{name: "lost connections, near", records: 3, first: 1, faults: 2, batch: 3, kinds: losses + answers + withdrawals + leaders},
	{name: "refusals", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: refusals + losses + answers},
	{name: "refusals of several records", records: 3, first: 2, faults: 2, far: true, batch: 2, kinds: refusals + losses + answers},
	{name: "withdrawals", records: 3, first: 2, faults: 2, far: true, batch: 2, kinds: losses + answers + withdrawals},
	{name: "compressed", records: 3, first: 2, faults: 2, far: true, batch: 2, zip: true, kinds: losses + answers + withdrawals + closes},
	{name: "leaders", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers + leaders + withdrawals},
	{name: "close", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers + refusals + closes},
	{name: "topic made anew", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: losses + answers + remakes + withdrawals},
	// Not for this one: a batch of which nothing was written, for want of a connection, and the
	// next one written all the same, just when the topic is made anew. No broker that knows
	// topics by name alone can tell that the first is missing.
	{name: "topic made anew, no ids", records: 3, first: 1, faults: 2, far: true, batch: 1, kinds: "lose connection,end unwritten," + remakes, setUp: func(p *play) { p.broker.ids, p.broker.late = false, true }},
	{name: "largest epoch", records: 3, first: 1, faults: 1, far: true, batch: 1, kinds: losses + answers + refusals, setUp: func(p *play) { p.begin(math.MaxInt16, 0); p.broker.late = true }},
	{name: "largest sequence", records: 3, first: 1, faults: 1, far: true, batch: 1, kinds: losses + answers + refusals, setUp: func(p *play) { p.begin(0, math.MaxInt32) }},
}

func TestModel(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			switch {
			case testing.Short():
				m.faults = 1
			case *modelLong:
				m.faults++
			}
			n, states, err := m.check("")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d histories, %d states", n, states)
		})
	}
}

// check plays all histories, and returns what is wrong with the first of which the broker
// says it in such words.
func (m model) check(words string) (histories, states int, err error) {
	seen := make(map[string]bool)
	var path []int // the choices of a history
	for {
		histories++
		err = nil
		p := newPlay(m)
		var width []int // how many there were, of each choice
		for {
			events := p.events()
			if len(events) == 0 {
				err = p.judgeAll()
				break
			}
			at := len(width)
			if at == len(path) {
				key := p.key()
				if seen[key] {
					break
				}
				seen[key] = true
				path = append(path, 0)
			}
			width = append(width, len(events))
			p.happens(events[path[at]])
			if p.err != nil {
				err = p.err
				break
			}
			if len(width) > 150 {
				err = errors.New("it does not end")
				break
			}
		}
		if err != nil && strings.Contains(err.Error(), words) {
			for _, e := range p.told {
				err = fmt.Errorf("%w\n%s %v", err, e.what, e.args)
			}
			return histories, len(seen), err
		}
		for len(width) > 0 && path[len(width)-1] == width[len(width)-1]-1 {
			width = width[:len(width)-1]
		}
		if len(width) == 0 {
			return histories, len(seen), nil
		}
		path = path[:len(width)]
		path[len(path)-1]++
	}
}

// A play is one history.
type play struct {
	model
	broker   *modelBroker
	topic    *topic
	records  []*Record
	outcomes []*Outcome
	tries    []*modelTry // that are not over, in the order of their issue
	encodes  []*batch    // that are being compressed
	zombies  []*modelTry // written on connections that are gone, and not taken by the broker
	faults   int         // so many more
	learned  int         // the topic that the Sender knows
	closed   bool
	written  []bool // the records that were, at least once
	passing  bool   // there were no faults but such as pass
	told     []event
	err      error
}

// A modelTry is one Produce request.
type modelTry struct {
	b       *batch
	wire    wireBatch
	written bool
	taken   bool // the broker has seen it, or its connection is lost: it may end
	answer  *kmsg.ProduceResponseTopicPartition
	err     error
}

type event struct {
	what string
	args []any // what it is about
	does func()
	cost int // of faults
}

func newPlay(m model) *play {
	s := &Sender{cfg: Config{Far: func() bool { return m.far }}, life: context.Background(), id: -1}
	p := &play{model: m, passing: true, written: make([]bool, m.records), broker: newModelBroker(true), faults: m.faults, outcomes: make([]*Outcome, m.records)}
	p.topic = &topic{sender: s, name: "t", limit: 1 << 20, largest: int64(m.batch), loading: true} // a record is of size 1
	p.topic.begin(State{ID: [16]byte{1}, Partitions: []Leader{{0, 0}}})
	if m.setUp != nil {
		m.setUp(p)
	}
	for range m.first {
		p.add()
	}
	p.advance(p.topic.parts[0])
	return p
}

// begin makes it a Sender that has sent before.
func (p *play) begin(epoch int16, sequence int32) {
	s := p.topic.parts[0]
	s.producerID, s.epoch, s.sequence = p.broker.newProducer(), epoch, sequence
	p.topic.sender.id, s.knownID, s.known = s.producerID, s.producerID, thisInstant()
	before := sequenceAfter(sequence, math.MaxInt32)
	p.broker.producers[s.producerID] = &producerState{epoch, []knownBatch{{before, before, 0}}}
}

func (p *play) happens(e event) {
	p.told = append(p.told, e)
	p.faults -= e.cost
	e.does()
}

func (p *play) settle(out []settlement) {
	for _, o := range out {
		i := o.record.Owner.(int)
		if p.outcomes[i] != nil {
			p.err = fmt.Errorf("record %d is settled twice", i)
		}
		p.outcomes[i] = &o.outcome
		p.told = append(p.told, event{what: "    record", args: []any{i, o.outcome.Result, o.outcome.Err}})
	}
}

// events returns what may happen now.
func (p *play) events() (all []event) {
	add := func(cost int, does func(), what string, args ...any) {
		if cost <= p.faults {
			all = append(all, event{what, args, does, cost})
		}
	}
	fault := func(kind string, does func(), args ...any) {
		if strings.Contains(p.kinds, kind) {
			if !strings.Contains(losses+answers+leaders, kind) {
				told := does
				does = func() { p.passing = false; told() }
			}
			add(1, does, kind, args...)
		}
	}
	t := p.topic
	first := true // of those that the broker has not taken
	for _, try := range p.tries {
		switch {
		case try.taken:
			add(0, func() { p.end(try, try.answer, try.err) }, "end of", try.wire, try.err)
		case !try.written:
			add(0, func() { p.write(try, true) }, "write")
			fault("not connected", func() { p.write(try, false) })
			fault("end unwritten", func() { p.end(try, nil, errNotWritten) })
		case first:
			first = false
			add(0, func() { p.take(try, nil, nil) }, "broker takes", try.wire)
			fault("before append", func() { p.take(try, kerr.UnknownTopicOrPartition, nil) }, try.wire)
			fault("unexplained", func() { p.take(try, kerr.NotEnoughReplicas, nil) }, try.wire)
			fault("after append", func() { p.take(try, nil, kerr.NotLeaderForPartition) }, try.wire)
			fault("invalid record", func() { p.take(try, kerr.InvalidRecord, nil) }, try.wire)
			if len(try.wire.records) > 1 {
				fault("invalid record", func() { p.take(try, kerr.InvalidRecord, nil); nameFirst(try.answer) }, try.wire, "names the first")
			}
			fault("too large", func() { p.take(try, kerr.MessageTooLarge, nil) }, try.wire)
		}
	}
	written := p.untaken()
	answered := slices.ContainsFunc(p.tries, func(o *modelTry) bool { return o.answer != nil })
	for n := range len(written) + 1 {
		if len(written) > 0 || answered {
			fault("lose connection", func() { p.lose(written[:n], true) }, n, "are taken later")
		}
		if len(written) > 0 && answered {
			fault("lose connection", func() { p.lose(written[:n], false) }, n, "are taken later; kgo has read the answers that there were")
		}
		if !p.closed {
			fault("close", func() { p.close(written[:n]) }, n, "are taken later")
		}
	}
	if len(p.zombies) > 0 {
		z := p.zombies[0]
		add(0, func() { p.broker.take(z.wire); p.zombies = p.zombies[1:] }, "broker takes, later,", z.wire)
	}
	if len(p.records) < p.model.records && !p.closed {
		add(0, func() { p.send() }, "send", len(p.records))
	}
	for i, r := range p.records {
		if r.state != settled && r.lost == nil {
			fault("withdraw", func() { p.withdraw(r) }, i)
		}
	}
	for _, b := range p.encodes {
		add(0, func() { p.encode(b) }, "encode", b.reading)
	}
	for _, s := range p.partitions() {
		if s.comingBack && !p.closed {
			add(0, func() { p.comeBack(s) }, "come back")
		}
	}
	for _, s := range t.parts {
		if s.leader >= 0 && !p.closed {
			fault("leader", func() { s.leader = -1 }, "unknown")
		}
	}
	if !p.closed {
		fault("remake", p.broker.remake)
		if p.learned < p.broker.topic() {
			add(0, p.learn, "learn that the topic is another")
		}
	}
	return all
}

// judgeAll returns what is wrong at the end of the history.
func (p *play) judgeAll() error {
	if err := p.broker.judge(p.outcomes); err != nil {
		return err
	}
	for i, o := range p.outcomes {
		switch {
		case o.Result == Unknown && !p.written[i]:
			return fmt.Errorf("record %d is unknown, and was not written", i)
		case o.Result != InLog && p.passing:
			return fmt.Errorf("record %d is given up (%w), and all faults have passed", i, o.Err)
		}
	}
	return nil
}

func ids(records []*Record) []int {
	all := make([]int, len(records))
	for i, r := range records {
		all[i] = r.Owner.(int)
	}
	return all
}

func nameFirst(answer *kmsg.ProduceResponseTopicPartition) {
	answer.ErrorRecords = []kmsg.ProduceResponseTopicPartitionErrorRecord{{RelativeOffset: 0}}
}

// partitions returns those of the topic, and of the one before it.
func (p *play) partitions() []*partition { return slices.Concat(p.topic.old, p.topic.parts) }

// untaken returns the tries that the connection holds.
func (p *play) untaken() (all []*modelTry) {
	for _, try := range p.tries {
		if try.written && !try.taken {
			all = append(all, try)
		}
	}
	return all
}
