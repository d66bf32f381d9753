package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/interop"
	"github.com/gracedb-go/gracedb/internal/samples"
)

//go:embed peer.py
var peerProgram string

// A peer is a Python process that publishes events.
type peer struct {
	box *interop.Sandbox
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (r *rig) newPeer(ctx context.Context) (*peer, error) {
	dir := filepath.Join(r.dir, "peer")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	box, err := interop.NewSandbox(ctx, dir, r.kafka.Authority, r.kafka.Issuer)
	if err != nil {
		return nil, err
	}
	if err := box.SetToken(r.token); err != nil {
		return nil, err
	}
	for i, s := range events() {
		if err := os.WriteFile(filepath.Join(dir, eventFile(i)), s.Data, 0o600); err != nil {
			return nil, err
		}
	}
	options, err := json.Marshal(map[string]any{
		"service_url": r.serviceURL(), "bootstrap_servers": r.broker.Addr(), "instance_name": instance, "ca_cert_path": r.caFile,
	})
	if err != nil {
		return nil, err
	}
	p := &peer{box: box, cmd: box.Command(ctx, "-u", "-c", peerProgram, string(options))}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	p.out = bufio.NewReader(out)
	return p, err
}

func eventFile(i int) string { return fmt.Sprintf("event%d", i) }

// version says what the peer is; it says so once, before anything else.
func (p *peer) version() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func (p *peer) publish(i int, s samples.Event) (time.Duration, error) {
	line, err := json.Marshal(map[string]any{
		"path": filepath.Join(p.box.Dir, eventFile(i)), "filename": s.Filename,
		"group": s.Group, "pipeline": s.Pipeline, "search": s.Search,
	})
	if err != nil {
		return 0, err
	}
	var seconds float64
	if _, err = p.in.Write(append(line, '\n')); err == nil {
		_, err = fmt.Fscanln(p.out, &seconds)
	}
	if err != nil {
		return 0, fmt.Errorf("peer: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func (p *peer) close() error {
	err := p.in.Close()
	if waited := p.cmd.Wait(); waited != nil {
		err = errors.Join(err, waited)
	}
	return err
}

// An against is the same event published by both, after a time of quiet.
type against struct {
	ours, theirs   []time.Duration
	sent, peerSent int64 // bytes, by the last of each
}

// compare publishes each sample with the library and with the peer, in turn.
func (r *rig) compare(ctx context.Context, p *peer, rounds int) ([]against, error) {
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: r.serviceURL(), Token: gracedb.StaticToken(r.token), CAFile: r.caFile})
	if err != nil {
		return nil, err
	}
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: r.cluster(false)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = producer.Close() }()
	all := make([]against, len(events()))
	for round := range rounds + 1 {
		for i, s := range events() {
			r.idle()
			before, _ := r.broker.Bytes()
			start := time.Now()
			if _, err := client.PublishEvent(ctx, producer, event(s), gracedb.PublishOptions{}); err != nil {
				return nil, err
			}
			ours := time.Since(start)
			between, _ := r.broker.Bytes()
			r.idle()
			theirs, err := p.publish(i, s)
			if err != nil {
				return nil, err
			}
			after, _ := r.broker.Bytes()
			if round > 0 { // the first opens connections and warms caches
				a := &all[i]
				a.ours, a.theirs = append(a.ours, ours), append(a.theirs, theirs)
				a.sent, a.peerSent = between-before, after-between
			}
		}
	}
	return all, nil
}
