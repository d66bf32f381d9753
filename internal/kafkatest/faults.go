package kafkatest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An Action is what a Fault does to the requests that it meets.
type Action int

// The actions. Those on requests happen before the broker has done anything;
// those on responses after it has done its work, such as an append. After a
// swallowed frame nothing more arrives in that direction on that connection, and
// after a swallowed request nothing in either, though it stays open: there are
// no gaps in a stream.
const (
	CutRequest       Action = iota + 1 // tear the connection down
	DropRequest                        // swallow the request
	HoldRequest                        // let a request that was read lie for Delay, whatever becomes of its connection, and then do its work
	AwaitReplicas                      // answer a Produce request with acks=all Delay after the append; if its partition has another leader before, or its own time is over, with that error
	CutResponse                        // tear the connection down instead of answering
	DropResponse                       // swallow the response
	HalfResponse                       // send half of the response, then tear the connection down
	HoldResponse                       // send the response Delay later
	ThrottleResponse                   // say ThrottleMillis of Delay, and read nothing more for that long
	ErrorResponse                      // answer Err although the work is done; NOT_ENOUGH_REPLICAS, which no broker says after an append, without it
	RewriteResponse                    // let Rewrite change the response
	HugeResponse                       // announce a frame of Length bytes, and send the little that there is
	GarbageResponse                    // send random bytes
	StrayResponse                      // answer with the correlation id of another request
)

// A Fault is something that goes wrong with requests of certain kinds. Faults are
// looked at in the order of their injection; the first that matches a request
// takes it.
type Fault struct {
	Do      Action
	Keys    []kmsg.Key                        // kinds of request; if nil, every kind, ApiVersions and SASL included
	Nodes   []int32                           // if nil, all
	Match   func(kmsg.Request) bool           // chooses further; it must not call the Cluster; if nil, all
	Count   int                               // requests; if zero, one; if negative, all until Remove
	How     Cut                               // for Cut… and HalfResponse
	Delay   time.Duration                     // for HoldRequest, AwaitReplicas, HoldResponse and ThrottleResponse
	Length  int32                             // for HugeResponse
	Err     *kerr.Error                       // for ErrorResponse; if nil, UNKNOWN_SERVER_ERROR
	Rewrite func(kmsg.Request, kmsg.Response) // for RewriteResponse
}

// An Injection is a Fault in force.
type Injection struct {
	fault Fault
	owner *faults
	left  int
	hits  int
}

type faults struct {
	mu   sync.Mutex
	list []*Injection
	hit  chan struct{} // closed and made anew at each hit; nil if nobody waits
}

// Inject puts a fault in force until its Count is used up or it is removed.
func (c *Cluster) Inject(f Fault) *Injection {
	i := &Injection{fault: f, owner: &c.faults, left: f.Count}
	if f.Count == 0 {
		i.left = 1
	}
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	c.faults.list = append(c.faults.list, i)
	return i
}

// Remove ends the injection. What it holds at the moment is still held.
func (i *Injection) Remove() {
	i.owner.mu.Lock()
	defer i.owner.mu.Unlock()
	i.owner.remove(i)
}

// Hits returns how many requests have met the fault.
func (i *Injection) Hits() int {
	i.owner.mu.Lock()
	defer i.owner.mu.Unlock()
	return i.hits
}

// Wait waits until at least n requests have met the fault.
func (i *Injection) Wait(ctx context.Context, n int) error {
	for {
		i.owner.mu.Lock()
		if i.hits >= n {
			i.owner.mu.Unlock()
			return nil
		}
		if i.owner.hit == nil {
			i.owner.hit = make(chan struct{})
		}
		hit := i.owner.hit
		i.owner.mu.Unlock()
		select {
		case <-hit:
		case <-ctx.Done():
			return fmt.Errorf("kafkatest: %d of %d requests have met the fault: %w", i.Hits(), n, ctx.Err())
		}
	}
}

func (f *faults) remove(i *Injection) {
	f.list = slices.DeleteFunc(f.list, func(o *Injection) bool { return o == i })
}

// take returns the injection that a request meets, or nil.
func (f *faults) take(c *conn, r *request) *Injection {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.list {
		if len(i.fault.Keys) > 0 && !slices.Contains(i.fault.Keys, kmsg.Key(r.key)) ||
			len(i.fault.Nodes) > 0 && !slices.Contains(i.fault.Nodes, c.n.id) {
			continue
		}
		if i.fault.Match != nil {
			if req, err := r.decode(); err != nil || !i.fault.Match(req) {
				continue
			}
		}
		i.hits++
		if i.left--; i.left == 0 {
			f.remove(i)
		}
		if f.hit != nil {
			close(f.hit)
			f.hit = nil
		}
		return i
	}
	return nil
}

func (i *Injection) action() Action {
	if i == nil {
		return 0
	}
	return i.fault.Do
}

// before returns the error that the broker answers without doing a Produce request's
// work, or nil.
func (i *Injection) before() *kerr.Error {
	if i.action() == ErrorResponse && i.fault.Err == kerr.NotEnoughReplicas {
		return i.fault.Err
	}
	return nil
}

// spoil does to the response in frame what r's fault wants, and returns what is
// to be sent instead: nothing, if nil.
func (c *conn) spoil(r *request, frame []byte) ([]byte, error) {
	f := r.fault.fault
	switch f.Do {
	case CutResponse:
		c.cut(f.How)
		return nil, errInjected
	case DropResponse:
		c.lostResponse()
		return nil, nil
	case HalfResponse:
		_, _ = c.Conn.Write(frame[:len(frame)/2])
		c.cut(f.How)
		return nil, errInjected
	case HoldResponse:
		return frame, c.wait(f.Delay)
	case HugeResponse:
		binary.BigEndian.PutUint32(frame, uint32(f.Length))
		_, err := c.Conn.Write(frame)
		c.lostResponse()
		return nil, err
	case GarbageResponse:
		junk := make([]byte, 256)
		for n := range junk {
			junk[n] = byte(rand.Uint32())
		}
		junk[0] |= 0x40 // the length of no frame: else a client may wait for the rest of one
		_, err := c.Conn.Write(junk)
		c.lostResponse()
		return nil, err
	case StrayResponse:
		binary.BigEndian.PutUint32(frame[4:], uint32(r.corr+1000))
	case ThrottleResponse, ErrorResponse, RewriteResponse:
		return c.rewrite(r, frame)
	}
	return frame, nil
}

func (c *conn) lostResponse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lostOut = true
}

func (c *conn) rewrite(r *request, frame []byte) ([]byte, error) {
	f := r.fault.fault
	resp, err := r.response(frame)
	if err != nil {
		return nil, err
	}
	switch f.Do {
	case ThrottleResponse:
		setThrottle(resp, f.Delay)
		c.quiet(f.Delay)
	case ErrorResponse:
		e := f.Err
		if e == nil {
			e = kerr.UnknownServerError
		}
		setErrors(resp, e.Code)
		if produced, ok := resp.(*kmsg.ProduceResponse); ok {
			c.n.hint(produced)
		}
	case RewriteResponse:
		req, err := r.decode()
		if err != nil {
			return nil, err
		}
		f.Rewrite(req, resp)
	}
	return r.respond(resp), nil
}

// OnTopic returns a Match for the Produce and Fetch requests that concern a topic,
// which must exist: they name it, or its id.
func (c *Cluster) OnTopic(topic string) func(kmsg.Request) bool {
	var id [16]byte
	if info := c.kfake.TopicInfo(topic); info != nil {
		id = info.TopicID
	}
	is := func(name string, other [16]byte) bool {
		return name == topic || name == "" && other == id
	}
	return func(r kmsg.Request) bool {
		switch r := r.(type) {
		case *kmsg.ProduceRequest:
			return slices.ContainsFunc(r.Topics, func(t kmsg.ProduceRequestTopic) bool { return is(t.Topic, t.TopicID) })
		case *kmsg.FetchRequest:
			return slices.ContainsFunc(r.Topics, func(t kmsg.FetchRequestTopic) bool { return is(t.Topic, t.TopicID) })
		}
		return false
	}
}

// LoseAcks loses the acknowledgements of the next n Produce requests, whose
// records are appended: by CutResponse or by DropResponse.
func (c *Cluster) LoseAcks(n int, do Action) *Injection {
	return c.Inject(Fault{Do: do, Keys: []kmsg.Key{kmsg.Produce}, Count: n})
}

// LoseProduces loses the next n Produce requests before anything is appended: by
// CutRequest or by DropRequest.
func (c *Cluster) LoseProduces(n int, do Action) *Injection {
	return c.Inject(Fault{Do: do, Keys: []kmsg.Key{kmsg.Produce}, Count: n})
}

// ShrinkISR leaves partitions of a topic, or all, with fewer in-sync replicas than
// min.insync.replicas until the handle is removed: NOT_ENOUGH_REPLICAS is what is
// answered to acks=all, before anything else is looked at and with nothing appended.
// It says nothing of what was appended before.
func (c *Cluster) ShrinkISR(topic string, partitions ...int32) *kfake.FaultHandle {
	return c.Fail(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: partitions, Err: kerr.NotEnoughReplicas, Count: -1,
		When: func(r kmsg.Request) bool { return r.(*kmsg.ProduceRequest).Acks == -1 },
	})
}

// Fail makes kfake itself answer requests with an error, before their work is done
// or, for REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND, after it.
// Records is not affected.
func (c *Cluster) Fail(f kfake.Fault) *kfake.FaultHandle {
	match := f.When
	f.When = func(r kmsg.Request) bool {
		if fetch, ok := r.(*kmsg.FetchRequest); ok && fetch.Rack == internal {
			return false
		}
		return match == nil || match(r)
	}
	return c.kfake.Fault(f)
}
