package kafkatest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A lag is what nodes still say of topics although it has changed.
type lag struct {
	mu     sync.Mutex
	topics map[int32]map[string]*kmsg.MetadataResponseTopic // by node and name
}

// LagMetadata keeps the metadata that nodes tell of a topic, which must exist, as they
// are now: its id, its leaders and their epochs. The nodes act on the true ones.
// CatchUp ends it.
func (c *Cluster) LagMetadata(topic string, nodes ...int32) error {
	for _, n := range c.pick(nodes) {
		req := kmsg.NewPtrMetadataRequest()
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &topic
		req.Topics = append(req.Topics, rt)
		req.Version = 12
		answer, err := c.ask(n, req)
		if err != nil {
			return fmt.Errorf("kafkatest: metadata of %s: %w", topic, err)
		}
		resp := answer.(*kmsg.MetadataResponse)
		c.leaderless.tell(resp)
		if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 {
			return fmt.Errorf("kafkatest: metadata of %s: no such topic", topic)
		}
		c.lag.mu.Lock()
		if c.lag.topics[n.id] == nil {
			if c.lag.topics == nil {
				c.lag.topics = map[int32]map[string]*kmsg.MetadataResponseTopic{}
			}
			c.lag.topics[n.id] = map[string]*kmsg.MetadataResponseTopic{}
		}
		c.lag.topics[n.id][topic] = &resp.Topics[0]
		c.lag.mu.Unlock()
	}
	return nil
}

// CatchUp ends LagMetadata for nodes.
func (c *Cluster) CatchUp(nodes ...int32) {
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	for _, n := range c.pick(nodes) {
		delete(c.lag.topics, n.id)
	}
}

// tell puts into an answer what its node knows yet.
func (l *lag) tell(node int32, r *request, resp *kmsg.MetadataResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.topics[node]) == 0 {
		return nil
	}
	decoded, err := r.decode()
	if err != nil {
		return err
	}
	asked := decoded.(*kmsg.MetadataRequest).Topics
	for name, old := range l.topics[node] {
		told := false
		for i := range resp.Topics {
			t := &resp.Topics[i]
			switch {
			case t.TopicID == old.TopicID || t.Topic != nil && *t.Topic == name && !byID(asked, t.TopicID):
				*t, told = *old, true
			case t.Topic != nil && *t.Topic == name: // asked for by an id that is not known yet
				id := t.TopicID
				*t = kmsg.NewMetadataResponseTopic()
				t.TopicID, t.ErrorCode = id, kerr.UnknownTopicID.Code
			}
		}
		if asked == nil && !told {
			resp.Topics = append(resp.Topics, *old)
		}
	}
	return nil
}

func byID(asked []kmsg.MetadataRequestTopic, id [16]byte) bool {
	return slices.ContainsFunc(asked, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID == id && id != [16]byte{} })
}
