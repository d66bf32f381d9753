package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
	*interop.Process
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
	cmd := box.Command(ctx, "-u", "-c", peerProgram, string(options))
	cmd.Stderr = os.Stderr
	p, err := interop.Start(cmd)
	return &peer{box, p}, err
}

func eventFile(i int) string { return fmt.Sprintf("event%d", i) }

// version says what the peer is; it says so once, before anything else.
func (p *peer) version() (text string, err error) {
	if err := p.Next(&text); err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	return text, nil
}

func (p *peer) publish(ctx context.Context, i int, s samples.Event) (time.Duration, error) {
	var seconds float64
	err := p.Ask(ctx, map[string]any{
		"path": filepath.Join(p.box.Dir, eventFile(i)), "filename": s.Filename,
		"group": s.Group, "pipeline": s.Pipeline, "search": s.Search,
	}, &seconds)
	return time.Duration(seconds * float64(time.Second)), err
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
			theirs, err := p.publish(ctx, i, s)
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
