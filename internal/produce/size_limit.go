package produce

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is how large a batch may be for brokers to take it.

// A sizeLimit is the largest batch that brokers take for a topic, or why that is not known.
type sizeLimit struct {
	bytes  int64 // 0: not known
	hidden bool  // this client may not know: brokers have said so
}

// isOpen reports whether brokers have neither told the limit nor refused to tell it.
func (l sizeLimit) isOpen() bool { return l.bytes == 0 && !l.hidden }

// learnLimits asks once more for the limits that brokers have neither told nor refused to
// tell. The sender hears of them when these topics are described the next time.
func (p *Producer) learnLimits(ctx context.Context) {
	var open []string
	p.knownMu.Lock()
	for name, s := range p.known {
		if s.limit.isOpen() {
			open = append(open, name)
		}
	}
	p.knownMu.Unlock()
	limits := p.topicLimits(ctx, open...)
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	for name, limit := range limits {
		if s, known := p.known[name]; known && s.limit.isOpen() {
			s.limit = limit
			p.known[name] = s
		}
	}
}

// topicLimits returns what brokers say of the largest batch that they take for each of these
// topics. Not every principal may ask. Topics of which they do not say it for another reason
// are left out.
func (p *Producer) topicLimits(ctx context.Context, topics ...string) map[string]sizeLimit {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, topic := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		r.ConfigNames = []string{"max.message.bytes"}
		req.Resources = append(req.Resources, r)
	}
	limits := make(map[string]sizeLimit, len(topics))
	if len(topics) == 0 {
		return limits
	}
	resp, err := req.RequestWith(ctx, p.cluster.KGO)
	if err != nil {
		return limits
	}
	for _, r := range resp.Resources {
		if c := r.ErrorCode; c == kerr.TopicAuthorizationFailed.Code || c == kerr.ClusterAuthorizationFailed.Code {
			limits[r.ResourceName] = sizeLimit{hidden: true}
		}
		for _, c := range r.Configs {
			if c.Name == "max.message.bytes" && c.Value != nil {
				if n, err := strconv.ParseInt(*c.Value, 10, 64); err == nil && n > 0 {
					limits[r.ResourceName] = sizeLimit{bytes: n}
				}
			}
		}
	}
	return limits
}
