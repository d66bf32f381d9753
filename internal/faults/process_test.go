package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
)

// childVariable names the part that this program plays as a child process.
const childVariable = "GRACEDB_FAULTS_CHILD"

// children are the parts that there are. What one is to do comes as JSON on its
// standard input, so that a token is on no command line and in no environment.
var children = map[string]func(task) error{
	"consume": consumeAsChild,
}

func runChild(name string) int {
	var do task
	if err := json.NewDecoder(os.Stdin).Decode(&do); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := children[name](do); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A task is what a child process is to do.
type task struct {
	Brokers       []string
	CAFile, Token string
	Group         string
	Handling      time.Duration // of each message
	Commit        bool          // after each message
	Kill          int           // which message to die at, counted from 1; 0 is none
	After         time.Duration // how long after having handled it
	AtHand        bool          // and without having asked for the next
}

// child starts a part. It is killed at the end of the test, if it still runs.
func child(t testing.TB, name string, do task) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	// The race detector's runtime waits for a second before it lets a process end.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, append(os.Environ(), childVariable+"="+name)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(stdin).Encode(do); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout)
}

// task returns what a child needs to get at the cluster.
func (r *rig) task(t testing.TB, group string) task {
	t.Helper()
	token, err := r.source("bob")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return task{Brokers: r.Addrs(), CAFile: r.CAFile(), Token: token, Group: group}
}

// cluster returns the cluster that a task names.
func (do task) cluster() gracedb.Cluster {
	return gracedb.Cluster{Brokers: do.Brokers, Instance: "gracedb-test", CAFile: do.CAFile, Token: gracedb.StaticToken(do.Token)}
}
