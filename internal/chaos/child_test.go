//go:build unix

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// childVariable makes the test binary a consumer of a group, in a process that can
// be killed. It names a file that says what a child has to know.
const childVariable = "GRACEDB_CHAOS_CHILD"

// A childConfig is in that file.
type childConfig struct {
	Brokers              []string
	CAFile, Token, Topic string
	GroupID              string
}

// runChild prints the offsets of what it has handled. Each is told done by asking
// for the next.
func runChild(file string) int {
	err := func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var cfg childConfig
		if err := json.Unmarshal(text, &cfg); err != nil {
			return err
		}
		c, err := gracedb.NewConsumer(context.Background(), gracedb.ConsumerConfig{
			Cluster: gracedb.Cluster{Brokers: cfg.Brokers, Instance: instance, CAFile: cfg.CAFile, Token: gracedb.StaticToken(cfg.Token)},
			Topics:  []string{cfg.Topic}, GroupID: cfg.GroupID,
		})
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for m, err := range c.Stream(context.Background()) {
			if err != nil {
				return err
			}
			fmt.Println(m.Offset)
		}
		return c.Close()
	}()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// A consumer dies with a message in hand: the next member of the group is given
// that and all that follow, within 15 seconds, and nothing is skipped.
func TestFault_B20_ConsumerKilledOnKafka(t *testing.T) {
	r := newRig(t, "b20", 1)
	p := r.producer(t, nil)
	token, err := r.kafka.Issuer.Token(testauth.Claims{})
	must(t, err)
	cfg := childConfig{Brokers: r.kafka.Addrs(), CAFile: r.ca, Token: token, Topic: r.topic, GroupID: "b20"}
	text, err := json.Marshal(cfg)
	must(t, err)
	file := filepath.Join(t.TempDir(), "child.json")
	must(t, os.WriteFile(file, text, 0o600))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+file)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	lines := bufio.NewScanner(out)
	lines.Scan()
	if lines.Text() != "ready" {
		t.Fatal(lines.Text())
	}
	handled := make(chan []string, 1)
	go func() {
		var got []string
		for lines.Scan() {
			got = append(got, lines.Text())
		}
		handled <- got
	}()
	// Slowly, since what is done is stored once a second.
	const n = 60
	var killed time.Time
	for i := range n {
		if i == n/2 {
			must(t, child.Process.Kill())
			killed = time.Now()
		}
		r.send(t, p, "k")
		wait(80 * time.Millisecond)
	}
	got := <-handled
	for i, offset := range got {
		if offset != fmt.Sprint(i) {
			t.Fatalf("the child has handled %s", strings.Join(got, " "))
		}
	}

	c := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = cfg.GroupID })
	m, err := c.Poll(t.Context())
	must(t, err)
	// The partition moves when the session of 10 s has ended.
	atMost(t, "the partition's move", time.Since(killed), 15*time.Second)
	t.Logf("the child has handled %d messages, the next begins with message %d", len(got), m.Offset)
	if m.Offset >= int64(len(got)) || m.Offset == 0 {
		t.Errorf("the last of %d messages was in the hands of the child, and the next begins with message %d", len(got), m.Offset)
	}
	r.receive(t, c, m.Offset+1, n-int(m.Offset)-1)
	r.close(t, p)
}
