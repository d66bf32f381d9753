//go:build unix

package interop

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
)

//go:embed matrix.py
var matrixScript string

// ours is a matrixSide.
func ours(ctx context.Context, _ *testing.T, _ *Sandbox, k *matrixCell, begin func()) (string, func()) {
	nothing := func() {}
	// On a connection that was idle, a creation is sent again if it was not written
	// whole when the server cut it: on sockets, that depends on who is faster.
	plain := k.grace.HTTPClient()
	plain.Transport.(*http.Transport).DisableKeepAlives = true
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: k.grace.URL(), HTTP: plain, Token: gracedb.StaticToken(k.token)})
	if err != nil {
		return err.Error(), nothing
	}
	p, err := client.NewProducer(ctx, gracedb.ProducerConfig{
		Topic: "test", Cluster: gracedb.Cluster{Brokers: k.kafka.Addrs(), CAFile: k.kafka.CAFile()},
	})
	if err != nil {
		return err.Error(), nothing
	}
	if _, err := client.ServiceInfo(ctx); err != nil {
		return err.Error(), nothing
	}
	begin()
	e := gracedb.Event{Group: "CBC", Pipeline: "gstlal", Filename: "coinc.xml", Data: make([]byte, cmp.Or(k.publish.size, 100))}
	_, _ = rand.Read(e.Data)
	calling, cancel := context.WithTimeout(ctx, matrixPatience)
	defer cancel()
	receipt, err := client.PublishEvent(calling, p, e, k.opts)
	settle := func() {
		ctx, cancel := context.WithTimeout(ctx, matrixSettle)
		defer cancel()
		_ = errors.Join(p.Flush(ctx), p.Close()) // the call has reported it
	}
	switch {
	case err != nil:
		return "error: " + kindsOf(err), settle
	case k.opts.PublishOnly:
		return "success by Kafka, no answer", settle
	case receipt.Message.Topic != "":
		return fmt.Sprintf("success by Kafka, graceid %q", receipt.GraceID), settle
	}
	return fmt.Sprintf("success by HTTP, graceid %q", receipt.GraceID), settle
}

// kindsOf lists what an error of ours is.
func kindsOf(err error) string {
	var is []string
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if errors.Is(err, kinds[name]) && name != "ErrProducer" {
			is = append(is, name)
		}
	}
	if r, ok := errors.AsType[*gracedb.ReservedError](err); ok {
		is = append(is, "ReservedError "+r.Reservation.GraceID)
	}
	if s, ok := errors.AsType[*gracedb.StatusError](err); ok {
		is = append(is, fmt.Sprintf("StatusError %d", s.StatusCode))
	}
	return strings.Join(is, ", ")
}

// theirs is a matrixSide, in a Python process of its own.
func theirs(ctx context.Context, t *testing.T, box *Sandbox, k *matrixCell, begin func()) (string, func()) {
	nothing := func() {}
	task := map[string]any{
		"service_url": k.grace.URL(), "size": cmp.Or(k.publish.size, 100), "settle": matrixSettle.Seconds(),
		"producer": Args{"bootstrap_servers": k.kafka.Addrs()[0], "ca_cert_path": k.kafka.CAFile()},
		"event": Args{
			"group": "CBC", "pipeline": "gstlal", "filename": "coinc.xml",
			"gracedb_upload": !k.opts.PublishOnly, "http_fallback": k.opts.HTTPFallback,
		},
	}
	p, err := Start(box.Command(ctx, "-u", "-c", matrixScript))
	if err != nil {
		return err.Error(), nothing
	}
	// next sends a line and returns the one that answers it.
	next := func(line any, within time.Duration) string {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		var text string
		if err := p.Ask(ctx, line, &text); err != nil {
			return "no answer after " + within.String()
		}
		return text
	}
	end := func() { _ = p.Close() }
	if text := next(task, time.Minute); text != "ready" {
		end()
		t.Errorf("%s: %s\n%.3000s", k.name(), text, p.Log())
		return text, nothing
	}
	begin()
	told := next(nil, matrixPatience)
	return told, func() { next(nil, 2*matrixSettle); end() }
}
