package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/interop"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A rig is what everybody talks to: one broker, one GraceDB, and a directory in
// which they find one token and the sample files.
type rig struct {
	kafka *realkafka.Cluster
	grace *gracetest.Server
	box   *interop.Sandbox
	at    place
	dir   string
	child string // the program of all but the peer
	// before is the same program with the library of another commit; empty if none is
	// measured.
	before string
}

// A place is what a child is told about the rig.
type place struct {
	Brokers    string `json:"bootstrap_servers"`
	Instance   string `json:"instance_name"`
	CAFile     string `json:"ca_cert_path"`
	ServiceURL string `json:"service_url"`
}

// pipelines are the topics that there are. Those for consuming are filled when
// they are needed.
var pipelines = []string{"test", "gstlal", "bulk", "small", "large", "latency-ours", "latency-bare", "latency-peer", "quiet"}

// sizes are those of the sample files, in bytes.
var sizes = []int{200, 50_000, 360_000, 800_000, 2_000_000}

// startRig starts a rig. If commit is not empty, its library is measured, too.
func startRig(ctx context.Context, commit string) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp("", "bench-*"); err != nil {
		return nil, err
	}
	r.child = filepath.Join(r.dir, "child")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", r.child, "./child").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if commit != "" {
		if r.before, err = buildBefore(ctx, commit, r.dir); err != nil {
			return nil, err
		}
	}
	if r.kafka, err = realkafka.Start(ctx, realkafka.Config{FullJIT: true}); err != nil {
		return nil, err
	}
	if r.grace, err = gracetest.Start(gracetest.Config{Authority: r.kafka.Authority, Issuer: r.kafka.Issuer}); err != nil {
		return nil, err
	}
	instance, err := gracedb.DeriveInstanceName(r.grace.URL())
	if err != nil {
		return nil, err
	}
	// As CILogon signs them. Before the sandbox, which is given the keys.
	token, err := r.kafka.Issuer.Token(testauth.Claims{Algorithm: testauth.RS256})
	if err != nil {
		return nil, err
	}
	home := filepath.Join(r.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if r.box, err = interop.NewSandbox(ctx, home, r.kafka.Authority, r.kafka.Issuer); err != nil {
		return nil, err
	}
	r.at = place{r.kafka.Addrs()[0], instance, r.box.CAFile, r.grace.URL()}
	if err := errors.Join(
		r.box.SetToken(token),
		// The last lets the library read the broker's limit.
		r.kafka.Allow(ctx, "alice", "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs),
		r.kafka.AllowGroups(ctx, "alice"),
	); err != nil {
		return nil, err
	}
	// A file written just now is read twice.
	old, file := time.Now().Add(-time.Minute), filepath.Join(home, "token")
	if err := os.Chtimes(file, old, old); err != nil {
		return nil, err
	}
	for _, name := range pipelines {
		if err := r.topic(ctx, name, 1); err != nil {
			return nil, err
		}
	}
	for _, size := range append(sizes, 100_000, 375_000) {
		data := samples.Coinc(max(size, 1000), 1)
		if size == 200 {
			data = samples.Aframe(1)
		}
		if err := os.WriteFile(r.sample(size), data, 0o600); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// topic makes a topic that does not exist yet.
func (r *rig) topic(ctx context.Context, pipeline string, partitions int32) error {
	return r.kafka.CreateTopic(ctx, gracedb.MakeTopicName(r.at.Instance, pipeline), partitions, nil)
}

// sample is the file of that size.
func (r *rig) sample(size int) string { return filepath.Join(r.dir, fmt.Sprintf("event-%d", size)) }

func (r *rig) close() error {
	var errs []error
	if r.grace != nil {
		r.grace.Close()
	}
	if r.kafka != nil {
		errs = append(errs, r.kafka.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// warmUp gives Java time to compile what the measurements use.
func (r *rig) warmUp(ctx context.Context, rounds int) error {
	c, err := r.start(ctx, bare)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.do(ctx, "open", args{"producer": true}, nil); err != nil {
		return err
	}
	for range rounds {
		for _, size := range sizes {
			if err := c.do(ctx, "publish", args{"path": r.sample(size), "pipeline": "gstlal"}, nil); err != nil {
				return err
			}
		}
	}
	// The broker makes its topic of offsets for the first group.
	return c.do(ctx, "consume", args{"topics": []string{"gstlal"}, "n": rounds * len(sizes)}, nil)
}

// start starts a child that can do what who can; it is told with do.
func (r *rig) start(ctx context.Context, who string) (*child, error) {
	at, err := json.Marshal(r.at)
	if err != nil {
		return nil, err
	}
	cmd := r.box.Command(ctx, "-u", "-c", peerScript, string(at))
	switch who {
	case peer:
	case before:
		cmd.Path, cmd.Args = r.before, []string{r.before, ours, string(at)}
	default:
		cmd.Path, cmd.Args = r.child, []string{r.child, who, string(at)}
	}
	return startChild(cmd, who)
}

// present returns those of whom that are measured in this run.
func (r *rig) present(whom ...string) []string {
	return slices.DeleteFunc(slices.Clone(whom), func(who string) bool { return who == before && r.before == "" })
}

// startAll starts one of each and opens a producer in it.
func (r *rig) startAll(ctx context.Context, whom ...string) (_ team, err error) {
	var t team
	defer func() {
		if err != nil {
			t.end()
		}
	}()
	for _, who := range r.present(whom...) {
		c, err := r.start(ctx, who)
		if err != nil {
			return nil, err
		}
		t = append(t, c)
		if err := c.do(ctx, "open", args{"producer": true}, nil); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// A team is one child of each kind, who do the same in turn.
type team []*child

func (t team) end() {
	for _, c := range t {
		c.end()
	}
}

// inTurn has each do something.
func (t team) inTurn(round int, f func(*child) error) error {
	return inTurn(t, round, func(c *child) error {
		if err := f(c); err != nil {
			return fmt.Errorf("%s: %w", c.who, err)
		}
		return nil
	})
}

// inTurn calls f for each, in the reverse order every second round.
func inTurn[T any](all []T, round int, f func(T) error) error {
	for i := range all {
		one := all[i]
		if round%2 == 1 {
			one = all[len(all)-1-i]
		}
		if err := f(one); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits for d or for ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
