package diagnose

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// usualLimit is what GraceDB's brokers take, and a Producer by default.
const usualLimit = 10 << 20

// addTopic reports all of one topic.
func (r *report) addTopic(caller context.Context, k *kafka, name string) {
	ctx, cancel := context.WithTimeout(caller, requestTime)
	defer cancel()
	checks := topicChecks(k.cfg, name)
	t, ok := k.topics[name]
	if !ok {
		began := time.Now()
		err := k.Await(ctx, cluster.Starting, "asking for topic "+name, func(ctx context.Context) error {
			_, err := k.FindTopics(ctx, kmsg.ACLOperationDescribe, name)
			return err
		})
		if err == nil { // it has been made this moment
			err = k.TopicError(ctx, name, kerr.UnknownTopicOrPartition)
		}
		r.fail("topic", name, time.Since(began), err, k.topicAdvice(name))
		r.skip("topic of "+name, name, checks[1:]...)
		return
	}
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil && len(t.Partitions) == 0 {
		r.fail("topic", name, 0, k.TopicError(ctx, name, err), k.topicAdvice(name))
		r.skip("topic of "+name, name, checks[1:]...)
		return
	}
	r.ok("topic", name, 0, "%d partition(s)", len(t.Partitions))
	r.addLeaders(name, t)
	if slices.Contains(checks, "write") {
		r.addRight(k, name, t, "write", kmsg.ACLOperationWrite)
		r.addConfigs(ctx, k, name, t)
	}
	if slices.Contains(checks, "read") {
		r.addRight(k, name, t, "read", kmsg.ACLOperationRead)
	}
}

// topicAdvice says what to do about a topic that is not seen.
func (k *kafka) topicAdvice(name string) string {
	names := make([]string, 0, len(k.topics))
	for n := range k.topics {
		if topicname.Check(n) == nil {
			names = append(names, n)
		}
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "correct the name, or have whoever runs the brokers make the topic, and give rights to it"
}

// addLeaders reports partitions that no broker leads.
func (r *report) addLeaders(name string, t kmsg.MetadataResponseTopic) {
	state := cluster.Topic{Name: name}
	for _, p := range t.Partitions {
		state.Partitions = append(state.Partitions, cluster.Partition{ID: p.Partition, Leader: p.Leader, Epoch: p.LeaderEpoch})
	}
	if err := cluster.CheckLeaders(map[string]cluster.Topic{name: state}, name); err != nil {
		r.fail("leaders", name, 0, err, "have whoever runs the brokers start those that hold these partitions")
		return
	}
	r.ok("leaders", name, 0, "a broker leads each partition")
}

// addRight reports whether this client may do op.
func (r *report) addRight(k *kafka, name string, t kmsg.MetadataResponseTopic, check string, op kmsg.ACLOperation) {
	state := cluster.Topic{Name: name, Operations: t.AuthorizedOperations}
	switch {
	case cluster.Forbids(t.AuthorizedOperations, op):
		err := k.TopicTrouble(context.Background(), name, op, state)
		r.fail(check, name, 0, err, fmt.Sprintf("have whoever runs the brokers give the right %s on topic %s", op, name))
	case cluster.RightsUnknown(t.AuthorizedOperations):
		r.warn(check, name, 0, "the broker, which is older than Kafka 2.3, does not tell whether this client may", "try it once before it matters")
	default:
		r.ok(check, name, 0, "%s may %s it", k.Principal(), map[string]string{"write": "write to", "read": "read"}[check])
	}
}

// addConfigs reports what a topic is set to, as far as this client may know it.
func (r *report) addConfigs(ctx context.Context, k *kafka, name string, t kmsg.MetadataResponseTopic) {
	began := time.Now()
	configs, err := k.configs(ctx, name)
	took := time.Since(began)
	r.addReplicas(k, name, t, took, configs["min.insync.replicas"])
	if err != nil {
		for _, check := range []string{"size", "compression", "cleanup"} {
			r.ok(check, name, took, "not told (%v): it takes the right DESCRIBE_CONFIGS, which publishing does not", err)
		}
		return
	}
	limit, known := number(configs["max.message.bytes"])
	switch {
	case !known:
		r.warn("size", name, took, "the broker does not tell the limit", "ask whoever runs the brokers for max.message.bytes")
	case limit < usualLimit:
		r.warn("size", name, took, fmt.Sprintf("batches of at most %d bytes are taken: files of more than %d bytes do not fit, unless they compress", limit, limit/4*3),
			fmt.Sprintf("have max.message.bytes of the topic set to %d, or use HTTPFallback", usualLimit))
	default:
		r.ok("size", name, took, "batches of at most %d bytes are taken", limit)
	}
	switch codec := configs["compression.type"]; codec {
	case "", "producer":
		r.ok("compression", name, took, "batches are kept as they are sent")
	case "uncompressed":
		r.warn("compression", name, took, "the broker inflates what is compressed, and its limit holds for that", "have compression.type of the topic set to producer")
	default:
		r.warn("compression", name, took, fmt.Sprintf("the broker compresses each batch anew, with %s, before it is acknowledged", codec),
			"have compression.type of the topic set to producer, if time matters")
	}
	if strings.Contains(configs["cleanup.policy"], "compact") {
		r.warn("cleanup", name, took, "the topic is compacted: it takes no message without a key, and keeps the last one of each",
			"set Message.Key (PublishEvent and Ping do), or have cleanup.policy of the topic set to delete")
		return
	}
	r.ok("cleanup", name, took, "cleanup.policy is %s", configs["cleanup.policy"])
}

// addReplicas reports whether there are enough replicas in sync. Kafka cuts what
// min.insync.replicas demands to the replicas that a partition has.
func (r *report) addReplicas(k *kafka, name string, t kmsg.MetadataResponseTopic, took time.Duration, setting string) {
	demand, known := number(setting)
	if !known {
		demand = 1
	}
	var short []string
	least, behind := int64(-1), 0
	for _, p := range t.Partitions {
		replicas, inSync := int64(len(p.Replicas)), int64(len(p.ISR))
		wanted := min(demand, replicas)
		if inSync < wanted {
			short = append(short, fmt.Sprintf("partition %d has %d of %d", p.Partition, inSync, wanted))
		}
		if inSync < replicas {
			behind++
		}
		if least < 0 || wanted < least {
			least = wanted
		}
	}
	const advice = "have whoever runs the brokers start those that are away"
	switch {
	case short != nil:
		r.add(Finding{
			Check: "replicas", Target: name, Severity: Failure, Took: took, Advice: advice,
			Detail: fmt.Sprintf("too few replicas are in sync for min.insync.replicas %d, and nothing is acknowledged: %s", demand, cluster.ShortList(short)),
		})
	case behind > 0:
		r.warn("replicas", name, took, fmt.Sprintf("%d partition(s) have replicas that are not in sync", behind), advice)
	case known && least == 1 && k.brokers > 1:
		r.warn("replicas", name, took, fmt.Sprintf("a message is acknowledged by one broker alone (min.insync.replicas %d, cut to the replicas there are), and may be lost with it", demand),
			"have the topic given 3 replicas, and min.insync.replicas 2")
	case !known:
		r.ok("replicas", name, took, "all are in sync; min.insync.replicas is not told")
	default:
		r.ok("replicas", name, took, "all are in sync, and %d acknowledge(s) each message", least)
	}
}

// configs returns some settings of a topic.
func (k *kafka) configs(ctx context.Context, name string) (map[string]string, error) {
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	resource.ConfigNames = []string{"max.message.bytes", "compression.type", "min.insync.replicas", "cleanup.policy"}
	values := make(map[string]string)
	err := k.Await(ctx, cluster.Starting, "asking how topic "+name+" is set", func(ctx context.Context) error {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Resources = append(req.Resources, resource)
		resp, err := req.RequestWith(ctx, k.KGO)
		if err != nil {
			return err
		}
		for _, of := range resp.Resources {
			if err := kerr.ErrorForCode(of.ErrorCode); err != nil {
				return err
			}
			for _, c := range of.Configs {
				if c.Value != nil {
					values[c.Name] = *c.Value
				}
			}
		}
		return nil
	})
	return values, err
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0
}
