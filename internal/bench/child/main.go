// Command child is what the benchmarks measure: this library, or franz-go and
// net/http by hand. It is a program of its own, so that what draws charts and starts
// brokers adds nothing to its start, its memory or its threads.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A subject is what is measured, as a child has it: the library, or franz-go and
// net/http by hand.
type subject interface {
	open(ctx context.Context) error // a client and a producer
	ping(ctx context.Context) error
	publish(ctx context.Context, e event) (steps, error)
	sync(ctx context.Context, topic string, key, value []byte) error  // until it is acknowledged
	queue(ctx context.Context, topic string, key, value []byte) error // without waiting
	queueJSON(ctx context.Context, topic string, v any) error
	flush(ctx context.Context) error
	// receive calls opened and then each until it is done with it. decode returns
	// the file in an event.
	receive(ctx context.Context, from source, opened func(), each func(value []byte, decode func() ([]byte, error)) (more bool, err error)) error
}

// A source is what to consume.
type source struct {
	topics   []string // pipelines
	group    string
	earliest bool
}

// An event is one to publish.
type event struct {
	pipeline string
	data     []byte
}

// steps are what publishing an event took, in seconds. Encode is what is neither
// reserving nor publishing: checking, hashing, encoding.
type steps struct{ Total, Reserve, Encode, Publish float64 }

// A place is where everything is.
type place struct {
	Brokers    string `json:"bootstrap_servers"`
	Instance   string `json:"instance_name"`
	CAFile     string `json:"ca_cert_path"`
	ServiceURL string `json:"service_url"`
}

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// run does commands until its input ends: a JSON object a line.
func run(ctx context.Context, who, at string) error {
	var p place
	if err := json.Unmarshal([]byte(at), &p); err != nil {
		return err
	}
	c := commands{}
	switch who {
	case "ours":
		c.subject = &library{place: p}
	case "bare", "bare-none":
		c.subject = &byHand{place: p, compress: who == "bare"}
	default:
		return fmt.Errorf("no child %q", who)
	}
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var line struct {
			Do   string
			Args order
		}
		if err := in.Decode(&line); err != nil {
			return nil //nolint:nilerr // the parent has ended
		}
		result, err := c.do(ctx, line.Do, line.Args)
		answer := map[string]any{"result": result}
		if err != nil {
			answer = map[string]any{"error": []string{"error"}, "message": err.Error()}
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
}

// An order is the arguments of all commands.
type order struct {
	Producer bool
	Consumer string // a pipeline, to be listened to in the background
	Path     string
	Pipeline string
	Topics   []string
	N, Size  int
	Callers  int
	Decode   bool
	Keys     bool
}

type commands struct {
	subject
	groups   int
	profiled *os.File
}

func (c *commands) do(ctx context.Context, name string, o order) (any, error) {
	switch name {
	case "open":
		return c.openAll(ctx, o)
	case "ping":
		return timed(func() error { return c.ping(ctx) })
	case "message":
		return timed(func() error { return c.sync(ctx, o.Pipeline, nil, []byte(`{"type":"message"}`)) })
	case "publish":
		data, err := os.ReadFile(o.Path)
		if err != nil {
			return nil, err
		}
		return c.publish(ctx, event{o.Pipeline, data})
	case "burst":
		return c.burst(ctx, o)
	case "produce":
		return c.produce(ctx, o)
	case "spread":
		return c.spread(ctx, o)
	case "allocations":
		return c.allocations(ctx, o)
	case "fill":
		return nil, c.fill(ctx, o)
	case "consume":
		return c.consume(ctx, o)
	case "latency":
		return c.latency(ctx, o)
	case "profile":
		return nil, c.profile(o.Path)
	case "token":
		return lookUp(ctx, o)
	case "floor":
		if b, ok := c.subject.(*byHand); ok {
			return b.floor(ctx, o)
		}
	}
	return nil, fmt.Errorf("no command %q", name)
}

// timed returns how many seconds f takes.
func timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

func (c *commands) openAll(ctx context.Context, o order) (any, error) {
	took, err := timed(func() error {
		if !o.Producer {
			return nil
		}
		return c.open(ctx)
	})
	if err != nil || o.Consumer == "" {
		return took, err
	}
	opened, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		failed <- c.receive(ctx, source{topics: []string{o.Consumer}, group: c.group()}, func() { close(opened) },
			func([]byte, func() ([]byte, error)) (bool, error) { return true, nil })
	}()
	select {
	case <-opened:
		return took, nil
	case err := <-failed:
		return took, err
	}
}

// group returns a name that nobody has used.
func (c *commands) group() string {
	c.groups++
	return fmt.Sprintf("bench-%d-%d", os.Getpid(), c.groups)
}

// burst publishes events from Callers goroutines.
func (c *commands) burst(ctx context.Context, o order) (any, error) {
	data, err := os.ReadFile(o.Path)
	if err != nil {
		return nil, err
	}
	return timed(func() error {
		return concurrently(o.Callers, o.N, func(int) error {
			_, err := c.publish(ctx, event{o.Pipeline, data})
			return err
		})
	})
}

// concurrently calls f n times from several goroutines.
func concurrently(callers, n int, f func(i int) error) error {
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := caller; i < n && errs[caller] == nil; i += callers {
				errs[caller] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// A bulk is a message of many: what is measured is not the making of its contents.
type bulk struct {
	GraceID string    `json:"graceid"`
	Number  int       `json:"number"`
	Time    float64   `json:"time"`
	File    [2]string `json:"eventFile"`
}

const bulkOverhead = 85 // of a bulk's JSON

// produce queues N fresh messages of Size bytes, and waits for all.
func (c *commands) produce(ctx context.Context, o order) (any, error) {
	data, err := os.ReadFile(o.Path)
	if err != nil {
		return nil, err
	}
	text := base64.StdEncoding.EncodeToString(data)
	return timed(func() error {
		for i := range o.N {
			from := i * 101 % (len(text) - o.Size)
			m := bulk{"G" + strconv.Itoa(i), i, float64(time.Now().UnixMicro()) / 1e6, [2]string{"coinc.xml", text[from : from+o.Size-bulkOverhead]}}
			if err := c.queueJSON(ctx, o.Pipeline, m); err != nil {
				return err
			}
		}
		return c.flush(ctx)
	})
}

// spread queues N messages for all Topics in turn, from Callers goroutines, and
// waits for all, or with Size 0 for each.
func (c *commands) spread(ctx context.Context, o order) (any, error) {
	value := make([]byte, max(o.Size, 100))
	keys := make([][]byte, o.N)
	for i := range keys {
		if o.Keys {
			keys[i] = []byte("G" + strconv.Itoa(i))
		}
	}
	return timed(func() error {
		err := concurrently(o.Callers, o.N, func(i int) error {
			topic := o.Topics[i%len(o.Topics)]
			if o.Size == 0 {
				return c.sync(ctx, topic, keys[i], value)
			}
			return c.queue(ctx, topic, keys[i], value)
		})
		return errors.Join(err, c.flush(ctx))
	})
}

// fill writes N events, as a producer of the peer's would.
func (c *commands) fill(ctx context.Context, o order) error {
	data, err := os.ReadFile(o.Path)
	if err != nil {
		return err
	}
	for i := range o.N {
		if err := c.queue(ctx, o.Pipeline, nil, envelope("https://gracedb.test/api/", "G"+strconv.Itoa(i), "alice", o.Pipeline, data)); err != nil {
			return err
		}
	}
	return c.flush(ctx)
}

// A reading is when what happened, in seconds since before the constructor.
type reading struct{ Opened, First, Last float64 }

// consume reads N messages from the beginning.
func (c *commands) consume(ctx context.Context, o order) (any, error) {
	var r reading
	start := time.Now()
	n := 0
	err := c.receive(ctx, source{o.Topics, c.group(), true}, func() { r.Opened = time.Since(start).Seconds() },
		func(_ []byte, decode func() ([]byte, error)) (bool, error) {
			if n++; n == 1 {
				r.First = time.Since(start).Seconds()
			}
			if o.Decode {
				if data, err := decode(); err != nil || len(data) == 0 {
					return false, errors.Join(errors.New("no file"), err)
				}
			}
			if n == o.N {
				r.Last = time.Since(start).Seconds()
			}
			return n < o.N, nil
		})
	return r, err
}

// latency sends one message at a time and waits until it is acknowledged and has
// come back.
func (c *commands) latency(ctx context.Context, o order) (any, error) {
	opened, arrived, failed := make(chan struct{}), make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	go func() {
		failed <- c.receive(ctx, source{topics: []string{o.Pipeline}, group: c.group()}, func() { close(opened) },
			func(value []byte, _ func() ([]byte, error)) (bool, error) {
				arrived <- string(value)
				return true, nil
			})
	}()
	select {
	case <-opened:
	case err := <-failed:
		return nil, err
	}
	var took []float64
	for i := range o.N {
		value := strconv.Itoa(i)
		start := time.Now()
		if err := c.sync(ctx, o.Pipeline, nil, []byte(value)); err != nil {
			return nil, err
		}
		for got := ""; got != value; {
			select {
			case got = <-arrived:
			case err := <-failed:
				return nil, errors.Join(err, ctx.Err())
			}
		}
		took = append(took, time.Since(start).Seconds())
		time.Sleep(5 * time.Millisecond) // the events are rare; so is what follows
	}
	return slices.Clip(took), nil
}
