package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// The rows of the bar that are about packets, on the kernel's own TCP: clients in one
// network namespace, in another a relay to the brokers, a cable between. The clock is
// real here, and bounds have ten times the room. Packets are lost by iptables, since
// not every kernel has netem.

// A cable is what joins the two namespaces.
type cable struct {
	t              *testing.T
	brokers, users string // the namespaces
	mu             sync.Mutex
	ports          []int // of the clients' connections so far
}

const (
	brokersIP = "10.91.0.1"
	usersIP   = "10.91.0.2"
)

var cables atomic.Int32

// cabled returns a rig whose clients are at the other end of a cable.
func cabled(t *testing.T, brokers int) (*rig, *cable) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	t.Parallel()
	id := fmt.Sprintf("gracedb%d-%d", os.Getpid(), cables.Add(1))
	c := &cable{t: t, brokers: id + "b", users: id + "u"}
	for _, ns := range []string{c.brokers, c.users} {
		c.run("ip", "netns", "add", ns)
		t.Cleanup(func() { c.run("ip", "netns", "del", ns) })
	}
	c.run("ip", "-n", c.brokers, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", c.users)
	for ns, ip := range map[string]string{c.brokers: brokersIP, c.users: usersIP} {
		c.run("ip", "-n", ns, "addr", "add", ip+"/24", "dev", "cable")
		c.run("ip", "-n", ns, "link", "set", "cable", "up")
	}
	r := newRig(t, kafkatest.Config{Brokers: brokers, Topics: map[string]int{topic: 2 * brokers}})
	for _, addr := range r.Addrs() {
		c.relay(addr)
	}
	return r, c
}

// run runs a command, which must succeed.
func (c *cable) run(name string, args ...string) {
	c.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		c.t.Errorf("%s %q: %v: %s", name, args, err, bytes.TrimSpace(out))
	}
}

// rule adds a rule of iptables to what comes into a namespace.
func (c *cable) rule(ns string, rule ...string) {
	c.t.Helper()
	c.run("ip", append([]string{"netns", "exec", ns, "iptables", "-w", "-A", "INPUT"}, rule...)...)
}

// heal removes all rules, which must have met packets.
func (c *cable) heal() {
	c.t.Helper()
	met := 0
	for _, ns := range []string{c.brokers, c.users} {
		out, err := exec.Command("ip", "netns", "exec", ns, "iptables", "-w", "-nvxL", "INPUT").Output()
		if err != nil {
			c.t.Error(err)
		}
		for line := range strings.Lines(string(out)) {
			if packets, err := strconv.Atoi(strings.SplitN(strings.TrimSpace(line), " ", 2)[0]); err == nil {
				met += packets
			}
		}
		c.run("ip", "netns", "exec", ns, "iptables", "-w", "-F", "INPUT")
	}
	if met == 0 {
		c.t.Error("the fault did not happen")
	}
	c.t.Logf("%d packets dropped", met)
}

// within runs f, which makes sockets, in a namespace. The thread that was there is
// not used for anything else.
func (c *cable) within(namespace string, f func() error) error {
	setns := map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]
	if setns == 0 {
		return errors.New("the number of setns is not known here")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with the goroutine
		file, err := os.Open("/run/netns/" + namespace)
		if err != nil {
			done <- err
			return
		}
		defer file.Close()
		if _, _, errno := syscall.RawSyscall(setns, file.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			done <- fmt.Errorf("setns: %w", errno)
			return
		}
		done <- f()
	}()
	return <-done
}

// relay makes a broker, which listens on the loopback interface, reachable on the
// same port of its end of the cable.
func (c *cable) relay(addr string) {
	c.t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		c.t.Fatal(err)
	}
	var l net.Listener
	if err := c.within(c.brokers, func() error {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(brokersIP, port))
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	c.t.Cleanup(func() { stop(); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { carryOver(ctx, near, net.JoinHostPort("127.0.0.1", port)) })
		}
	})
}

// carryOver joins a connection to another, until one of them or ctx ends.
func carryOver(ctx context.Context, near net.Conn, addr string) {
	var d net.Dialer
	far, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		_ = near.Close()
		return
	}
	cut := func() { _ = near.Close(); _ = far.Close() }
	defer context.AfterFunc(ctx, cut)()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, near); cut() })
	wg.Go(func() { _, _ = io.Copy(near, far); cut() })
	wg.Wait()
}

// Dial connects through the cable.
func (c *cable) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	err = c.within(c.users, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, net.JoinHostPort(brokersIP, port))
		return err
	})
	if err == nil {
		c.mu.Lock()
		c.ports = append(c.ports, conn.LocalAddr().(*net.TCPAddr).Port)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cable) producer(r *rig) *gracedb.Producer {
	c.t.Helper()
	return r.producer(c.t, func(cfg *gracedb.ProducerConfig) { cfg.Cluster.Dial, cfg.FlushTimeout = c.Dial, time.Minute })
}

// disturbed checks that messages sent all along survive what begin does to the cable,
// and how soon the first is acknowledged after end.
func disturbed(t *testing.T, lasting, bound time.Duration, begin, end func(*cable)) {
	r, c := cabled(t, 2)
	p := c.producer(r)
	stop := r.traffic(t, p, 4, 20*time.Millisecond)
	time.Sleep(time.Second)
	begin(c)
	time.Sleep(lasting)
	end(c)
	took := r.send(t, p, "after")
	within(t, "the first acknowledgement", took, 10*bound)
	time.Sleep(time.Second)
	stop()
	closeProducer(t, p)
	r.judge(t)
	if n := r.count(); n[failed]+n[unknown] > 0 || n[delivered] < int(lasting/time.Second)*50 {
		t.Errorf("%v", n)
	}
	t.Logf("acknowledged %v after the end", took)
}

func TestFault_N12_SYNDroppedByKernel(t *testing.T) {
	r, c := cabled(t, 1)
	c.rule(c.brokers, "-p", "tcp", "--syn", "-j", "DROP")
	cluster := r.cluster("alice")
	cluster.Dial = c.Dial
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	within(t, "NewProducer", time.Since(start), 4*time.Second)
	wantKinds(t, err, is(gracedb.ErrConnection, context.DeadlineExceeded), nil, r.Addrs()[0])
	t.Logf("after %v: %v", time.Since(start), err)
}

func TestFault_N17_PacketLoss(t *testing.T) {
	disturbed(t, 20*time.Second, time.Second, func(c *cable) {
		for _, ns := range []string{c.brokers, c.users} {
			c.rule(ns, "-m", "statistic", "--mode", "random", "--probability", "0.1", "-j", "DROP")
		}
	}, (*cable).heal)
}

func TestFault_N18_OnlyAnswersDropped(t *testing.T) {
	disturbed(t, 10*time.Second, time.Second, func(c *cable) { c.rule(c.users, "-j", "DROP") }, (*cable).heal)
}

func TestFault_N19_CableOut(t *testing.T) {
	disturbed(t, 3*time.Second, time.Second,
		func(c *cable) { c.run("ip", "-n", c.brokers, "link", "set", "cable", "down") },
		func(c *cable) { c.run("ip", "-n", c.brokers, "link", "set", "cable", "up") })
}

// Something in between forgets the flows that are idle: their packets go nowhere,
// in silence, and new connections get through.
func TestFault_N20_FlowForgottenByKernel(t *testing.T) {
	r, c := cabled(t, 1)
	p := c.producer(r)
	r.send(t, p, "k")
	c.mu.Lock()
	for _, port := range c.ports {
		c.rule(c.brokers, "-p", "tcp", "--sport", strconv.Itoa(port), "-j", "DROP")
		c.rule(c.users, "-p", "tcp", "--dport", strconv.Itoa(port), "-j", "DROP")
	}
	c.mu.Unlock()
	took := r.send(t, p, "k")
	// One period of keeping warm and 5 s, with room for this machine.
	within(t, "the next message", took, 40*time.Second)
	t.Logf("took %v", took)
	c.heal()
	closeProducer(t, p)
	r.judge(t)
}
