// Package diagnose checks what publishing and consuming need, one thing at a time, and writes
// nothing. It connects to GraceDB and to each broker itself, step by step, so that each step has a
// finding of its own, and asks the brokers that work by one kgo client for the rest.
//
// A check whose ground has failed is Skipped, and names the check that failed. Hosts are checked
// at the same time; findings are in the order of the checks. Its goroutines end before Run returns.
package diagnose

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A Severity is how bad a finding is.
type Severity int

// The severities, in the order of those of the root.
const (
	OK Severity = iota
	Warning
	Failure
	Skipped
)

// A Finding is what came of one check.
type Finding struct {
	Check, Target  string
	Severity       Severity
	Detail, Advice string
	Err            error
	Took           time.Duration
}

// A Service is a GraceDB to check.
type Service struct {
	// API makes the client, with this source of tokens and without repetitions.
	API    func(token.Source) (*gracedbapi.Client, error)
	Status func(error) int // of the answer that an error of it is about; 0 if there was none
	Token  token.Source    // nil to look where tokens are kept
	Own    bool            // the client's connections are its own
}

// A Kafka is a cluster to check.
type Kafka struct {
	Config           cluster.Config // without a Token, tokens are looked for where they are kept
	Publish, Consume []string       // full names of topics
	GroupID          string
}

// A Config says what to check: what is nil is not checked.
type Config struct {
	Service *Service
	Kafka   *Kafka
	Publish []string // pipelines, as GraceDB may know them
}

// A report collects findings.
type report []Finding

// add puts f into the report: nothing in it may show a token.
func (r *report) add(f Finding) {
	f.Target, f.Detail, f.Advice = errs.Clean(f.Target), errs.CleanN(f.Detail, errs.MaxOwnText), errs.CleanN(f.Advice, errs.MaxOwnText)
	switch {
	case f.Err == nil && (f.Severity == Warning || f.Severity == Failure):
		f.Err = errs.New(nil, "%s", f.Detail)
	case f.Err != nil && !errs.IsOurs(f.Err):
		f.Err = errs.New([]error{f.Err}, "%s", errs.Reason(f.Err))
	}
	*r = append(*r, f)
}

func (r *report) ok(check, target string, took time.Duration, format string, args ...any) {
	r.add(Finding{Check: check, Target: target, Detail: fmt.Sprintf(format, args...), Took: took})
}

// fail reports err, whose text is the detail.
func (r *report) fail(check, target string, took time.Duration, err error, advice string) {
	r.add(Finding{Check: check, Target: target, Severity: Failure, Detail: strings.TrimPrefix(errs.Reason(err), "kafka: "), Advice: advice, Err: err, Took: took})
}

func (r *report) warn(check, target string, took time.Duration, detail, advice string) {
	r.add(Finding{Check: check, Target: target, Severity: Warning, Detail: detail, Advice: advice, Took: took})
}

// skip reports checks that could not be made because of what failed.
func (r *report) skip(failed, target string, checks ...string) {
	for _, check := range checks {
		r.add(Finding{Check: check, Target: target, Severity: Skipped, Detail: "not checked: " + failed + " failed"})
	}
}

// failed is the name of the first failure in the report; or "".
func (r report) failed() string {
	for _, f := range r {
		if f.Severity == Failure {
			return f.Check + " of " + f.Target
		}
	}
	return ""
}

// Run makes all checks.
func Run(ctx context.Context, cfg Config) []Finding {
	var service, kafka report
	var wg sync.WaitGroup
	if cfg.Service != nil {
		wg.Go(func() { service = checkService(ctx, *cfg.Service, cfg.Publish) })
	}
	if cfg.Kafka != nil {
		wg.Go(func() { kafka = checkKafka(ctx, *cfg.Kafka) })
	}
	wg.Wait()
	return append(service, kafka...)
}
