package produce

import (
	"context"
	"fmt"
	"time"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// Flush waits until all queued messages are settled.
func (p *Producer) Flush(ctx context.Context) error {
	if err := inDone("Flush"); err != nil {
		return err
	}
	w := p.queue.drained()
	defer p.queue.forget(w)
	stopped := p.drain(ctx, w)
	failed, causes := p.queue.takeFailures()
	if failed == 0 {
		return stopped
	}
	if stopped != nil {
		return errs.New(append(causes, stopped), "%s; %s", errs.Reason(stopped), failureText(failed, causes))
	}
	return errs.New(causes, "kafka: %s", failureText(failed, causes))
}

// drain returns when w is done (nil), or why there is no use in waiting.
func (p *Producer) drain(ctx context.Context, w *drainWaiter) error {
	switch end, why := p.cluster.Auth.Wait(ctx, sasl.Waiting{Done: w.done, Closed: p.cluster.Life.Done, Stop: sasl.StopPastGrace}); end {
	case sasl.CtxEnded:
		is, trouble := p.cluster.Health.Trouble()
		if trouble != "" {
			trouble = ": " + trouble
		}
		return errs.New(append(is, errs.OutcomeUnknown, why), "kafka: flushing: %s with %d message(s) not settled (%s)%s", why, p.Pending(), p.unsent(), trouble)
	case sasl.AuthFails:
		return errs.New([]error{why, errs.Producer, errs.OutcomeUnknown}, "%s; %d message(s) wait for a good token (%s)", errs.Reason(why), p.Pending(), p.unsent())
	default: // done, or settled by Close
		return nil
	}
}

// unsent says of how many messages that are not settled it is certain that they were not
// written so far, and that there is no need to send any again.
func (p *Producer) unsent() string {
	if sent := p.sender.Sent(); sent > 0 {
		return fmt.Sprintf("%d of them may have been written, and the others will be: do not produce them again", sent)
	}
	return "none was sent so far, and all will be: do not produce them again"
}

// Close flushes for at most FlushTimeout, and releases everything.
func (p *Producer) Close() (err error) {
	if err := inDone("Close"); err != nil {
		return err
	}
	if p.cluster.Life.Begin() {
		err = p.close()
	}
	<-p.cluster.Life.Done
	return err
}

func (p *Producer) close() error {
	p.queue.close()
	w := p.queue.drained()
	timer := time.NewTimer(p.flushTimeout)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
	// What was not sent is settled soon, and the rest when its request has ended, which kgo
	// sees to before the connections are closed. A done that blocks holds up no Close: see
	// settleRest.
	p.sender.Close()
	timer.Reset(cluster.VerdictTime)
	select {
	case <-w.done:
	case <-timer.C:
	}
	p.cluster.Shut()
	p.settleRest(w, timer)
	p.cluster.Life.Finish()
	failed, causes := p.queue.takeLost()
	if failed == 0 {
		return nil
	}
	return errs.New(causes, "kafka: closed with %s", failureText(failed, causes))
}

// settleRest waits until all is settled: one message after the other, so that many take
// longer. It gives up on a done that blocks for a second.
func (p *Producer) settleRest(w *drainWaiter, timer *time.Timer) {
	for left := p.Pending(); ; {
		timer.Reset(time.Second)
		select {
		case <-w.done:
			return
		case <-timer.C:
		}
		now := p.Pending()
		if now >= left {
			return
		}
		left = now
	}
}
