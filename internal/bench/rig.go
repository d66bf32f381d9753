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
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/bench/shape"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/interop"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A rig is what everybody talks to: one broker, one GraceDB, and a directory in
// which they find one token and the sample files.
type rig struct {
	kafka   *realkafka.Cluster
	grace   *gracetest.Server
	box     *interop.Sandbox
	at      place
	proxies []*shape.Proxy // in front of the broker and of GraceDB, if the rig is far away
	dir     string
	child   string // the program of all but the peer
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
var pipelines = []string{"test", "gstlal", "bulk", "small", "large", "latency-ours", "latency-before", "latency-bare", "latency-peer", "quiet"}

// sizes are those of the sample files, in bytes.
var sizes = []int{200, 50_000, 360_000, 800_000, 2_000_000}

// startRig starts a rig. If commit is not empty, its library is measured, too. If the rig
// is far, its broker and GraceDB are behind proxies, whose links cost nothing yet.
func startRig(ctx context.Context, commit string, far bool) (_ *rig, err error) {
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
	if err := r.serve(ctx, far); err != nil {
		return nil, err
	}
	instance, err := gracedb.DeriveInstanceName(r.at.ServiceURL)
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
	r.at.Instance, r.at.CAFile = instance, r.box.CAFile
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

// serve starts the broker and GraceDB.
func (r *rig) serve(ctx context.Context, far bool) (err error) {
	kafka, web := realkafka.Config{FullJIT: true}, gracetest.Config{}
	if far {
		for range 2 {
			p, err := shape.Listen(ctx, "")
			if err != nil {
				return err
			}
			r.proxies = append(r.proxies, p)
		}
		kafka.Advertise = r.proxies[0].Addr()
		web.EditRoot = func(doc map[string]any) { shape.Redirect(doc, hostOf(r.grace), r.proxies[1].Addr()) }
	}
	if r.kafka, err = realkafka.Start(ctx, kafka); err != nil {
		return err
	}
	web.Authority, web.Issuer = r.kafka.Authority, r.kafka.Issuer
	if r.grace, err = gracetest.Start(web); err != nil {
		return err
	}
	r.at.Brokers, r.at.ServiceURL = r.kafka.Addrs()[0], r.grace.URL()
	if far {
		r.proxies[0].Target(r.at.Brokers)
		r.proxies[1].Target(hostOf(r.grace))
		r.at.Brokers, r.at.ServiceURL = r.proxies[0].Addr(), "https://"+r.proxies[1].Addr()+"/api/"
	}
	return nil
}

// hostOf is where a server listens.
func hostOf(s *gracetest.Server) string {
	return strings.TrimSuffix(strings.TrimPrefix(s.URL(), "https://"), "/api/")
}

// set puts the links of a far rig.
func (r *rig) set(l shape.Link) {
	for _, p := range r.proxies {
		p.Set(l)
	}
}

// idle makes the windows of a far rig's connections as small as after a time of quiet.
func (r *rig) idle() {
	for _, p := range r.proxies {
		p.Idle()
	}
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
	for _, p := range r.proxies {
		errs = append(errs, p.Close())
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
