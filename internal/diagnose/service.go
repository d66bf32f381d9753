package diagnose

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
)

// How far clocks may differ: brokers have tokens up to 30 seconds before they are valid, if they
// are set up as Kafka is delivered.
const (
	clockWarns = 5 * time.Second
	clockFails = 30 * time.Second
)

// checkService checks GraceDB.
func checkService(ctx context.Context, s Service, publish []string) (r report) {
	var raw string
	api, err := s.API(func(ctx context.Context) (string, error) { return only(raw)(ctx) })
	if err != nil {
		r.fail("configuration", "Client", 0, err, "correct DiagnoseConfig.Client as it says")
		r.skip("configuration of Client", "GraceDB", "token", "proxy", "names", "tcp", "tls", "clock", "service", "user", "reservations", "groups", "searches", "pipeline")
		return r
	}
	if s.Own {
		defer api.HTTP.CloseIdleConnections()
	}
	host := api.Host()
	raw = checkToken(ctx, &r, s.Token, api.TokenQuery(), host)
	noToken := r.failed()
	probe := api.Probe(ctx)
	r.addProbe(host, probe)
	checks := []string{"service", "user", "reservations", "groups", "searches", "pipeline"}
	switch {
	case probe.Err != nil:
		r.skip(r.failedSince(noToken != ""), host, checks...)
	case noToken != "":
		r.skip(noToken, host, checks...)
	default:
		r.addRoot(ctx, s, api, host, publish)
	}
	return r
}

// failedSince is the name of the failure that the rest stands on, after that of the token.
func (r report) failedSince(token bool) string {
	if token {
		r = r[1:]
	}
	return r.failed()
}

// addProbe reports the steps of a request, and the clock.
func (r *report) addProbe(host string, p gracedbapi.Probed) {
	peer := host
	switch {
	case p.Proxy == "":
		r.ok("proxy", host, 0, "none is used")
	case p.Status == 0 && !p.TLS.Done:
		r.fail("proxy", p.Proxy, 0, p.Err, "correct HTTPS_PROXY, or put the host of GraceDB into NO_PROXY")
		r.skip("proxy of "+p.Proxy, host, "names", "tcp", "tls", "clock")
		return
	default:
		peer = p.Proxy
		r.ok("proxy", p.Proxy, 0, "it lets connections to %s through", host)
	}
	failed := ""
	for _, s := range []struct {
		check string
		gracedbapi.Step
		saw string
	}{
		{"names", p.Names, families(p.Addresses)},
		{"tcp", p.TCP, "connected to " + p.Peer},
	} {
		switch {
		case failed != "":
			r.skip(failed, host, s.check)
		case !s.Done:
			r.ok(s.check, peer, 0, "nothing to look up, or left to ClientConfig.HTTP")
		case s.Err != nil:
			r.fail(s.check, peer, s.Took, s.Err, connectAdvice(s.Err, peer))
			failed = s.check + " of " + peer
		default:
			r.ok(s.check, peer, s.Took, "%s", s.saw)
		}
	}
	switch {
	case failed != "":
		r.skip(failed, host, "tls", "clock")
		return
	case p.Err != nil:
		r.fail("tls", host, p.TLS.Took, p.Err, connectAdvice(p.Err, host))
		r.skip("tls of "+host, host, "clock")
		return
	}
	r.addTLS(host, p.TLS.Took, p.State)
	r.addClock(host, p)
}

// addClock reports how far GraceDB's clock is from this machine's.
func (r *report) addClock(host string, p gracedbapi.Probed) {
	if !p.Dated {
		r.warn("clock", host, 0, "the answer has no Date to compare with", "look at this machine's clock yourself")
		return
	}
	off, way := p.Ahead, "behind"
	if off < 0 {
		off, way = -off, "ahead of"
	}
	const advice = "set this machine's clock (chronyd or ntpd), or have GraceDB's set"
	detail := fmt.Sprintf("this machine's clock is %v %s that of %s", off.Round(100*time.Millisecond), way, host)
	switch {
	case off >= clockFails:
		r.fail("clock", host, 0, errs.New(nil, "%s: tokens are taken for expired, or for not valid yet", detail), advice)
	case off >= clockWarns:
		r.warn("clock", host, 0, detail, advice)
	default:
		r.ok("clock", host, 0, "within %v of that of %s", clockWarns, host)
	}
}

// addRoot reports what the root document says, and whom GraceDB takes the token for.
func (r *report) addRoot(caller context.Context, s Service, api *gracedbapi.Client, host string, publish []string) {
	ctx, cancel := context.WithTimeout(caller, requestTime)
	defer cancel()
	began := time.Now()
	info, err := api.ServiceInfo(ctx)
	if err != nil {
		r.fail("service", host, time.Since(began), err, serviceAdvice(s.Status(err)))
		r.skip("service of "+host, host, "user", "reservations", "groups", "searches", "pipeline")
		return
	}
	r.ok("service", host, time.Since(began), "GraceDB %s answers", info.ServerVersion)
	began = time.Now()
	switch user, err := api.WhoAmI(ctx, info); {
	case err != nil:
		r.fail("user", host, time.Since(began), err, "get a token of a subject that GraceDB knows, with the scope gracedb.read")
	case user == "":
		r.ok("user", host, time.Since(began), "the token is taken; whom for is not told, nor which pipelines may be uploaded to")
	default:
		r.ok("user", host, time.Since(began), "the token is taken for %s; which pipelines it may upload to is not told before an upload", user)
	}
	if err := api.Reserves(info); err != nil {
		r.fail("reservations", host, 0, err, "publish with PublishOnly or use CreateEvent, or have GraceDB brought up to date")
	} else {
		r.ok("reservations", host, 0, "graceids can be reserved, and uploaded to")
	}
	for _, l := range []struct {
		check string
		names []string
	}{{"groups", info.Groups}, {"searches", info.Searches}} {
		if l.names == nil {
			r.warn(l.check, host, 0, "GraceDB does not say which it knows", "look that Event names are right")
			continue
		}
		r.ok(l.check, host, 0, "GraceDB knows %s", strings.Join(l.names, ", "))
	}
	for _, p := range publish {
		r.addPipeline(host, p, info)
	}
}

// serviceAdvice is what to do where the root document is not to be had, by the status of the answer.
func serviceAdvice(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return getToken + ", for a subject that GraceDB knows"
	case http.StatusNotFound, http.StatusOK: // which is a page instead of data
		return "correct ServiceURL: it usually ends in /api/"
	}
	return "try again later, or ask whoever runs GraceDB"
}

// addPipeline reports whether GraceDB knows a pipeline.
func (r *report) addPipeline(host, pipeline string, info *gracedbapi.Info) {
	names, advice := info.Pipelines, "correct the name in Publish and in Event.Pipeline"
	if strings.ToLower(pipeline) == "test" {
		names, advice = info.Groups, "use another topic than that of group Test"
	}
	if names == nil {
		r.warn("pipeline", pipeline, 0, host+" does not say which it knows", "look that it is right")
		return
	}
	for _, known := range names {
		if strings.EqualFold(known, pipeline) {
			r.ok("pipeline", pipeline, 0, "GraceDB knows it as %s", known)
			return
		}
	}
	detail := fmt.Sprintf("%s does not know it", host)
	if near := nearest(pipeline, names); near != "" {
		detail += fmt.Sprintf(": did you mean %q?", near)
	}
	r.add(Finding{Check: "pipeline", Target: pipeline, Severity: Failure, Detail: detail + " (it knows " + strings.Join(names, ", ") + ")", Advice: advice})
}
