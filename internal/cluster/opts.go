package cluster

import (
	"reflect"
	"runtime"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Connecting are the options that would replace how a Cluster says that brokers are reached,
// and what to use instead.
var Connecting = map[string]string{
	"Dialer":        "use Cluster.Dial, below TLS",
	"DialTimeout":   "use Cluster.Dial, with a timeout of its own",
	"DialTLSConfig": "use CAFile or SkipHostnameVerification",
	"SASL":          "use Token",
	"SeedBrokers":   "use Brokers",
}

// Reasons of several options below.
const (
	boundedMemory  = "what a Consumer holds is bounded, as ConsumerConfig says"
	noTransactions = "a Producer has no transactions"
	durable        = "an acknowledged message is on all in-sync replicas, and in the log once"
	untilItsCtx    = "a message is tried until its ctx or the Producer ends: use a ctx"
	noShares       = "a share group stores no position; use GroupID"
	itsOwn         = "the Consumer keeps its place with it; use Poll, Commit and Close"
	topicsItself   = "use Topics or Subscribe"
	compression    = "the Producer decides it for each batch; a topic's own is its compression.type"
	placement      = "a key has the partition that the Python package gives it, and a message without one goes where a leader is"
)

// notForOpts are the options that would have no effect in Cluster.Opts, or take away what
// this package promises, and what to use instead.
var notForOpts = map[string]string{
	"AllowAutoTopicCreation":           "a topic that does not exist is ErrTopic; make it with Kafka's tools",
	"ConsiderMissingTopicDeletedAfter": "a Consumer follows topics that go and come itself",
	"UserMetricsFn":                    "nothing is measured for brokers; use kgo.WithHooks",
	"WithContext":                      "each call takes a ctx, and Close ends all",
	"WithLogger":                       "use Logger, which is shown no token",

	"BrokerMaxReadBytes":      boundedMemory,
	"FetchMaxBytes":           boundedMemory,
	"FetchMaxPartitionBytes":  boundedMemory,
	"MaxDecompressBatchBytes": boundedMemory,
	"WithDecompressor":        boundedMemory,

	"AllowIdempotentProduceCancellation":  durable,
	"DisableIdempotentWrite":              durable,
	"MaxProduceRequestsInflightPerBroker": durable,
	"RequiredAcks":                        durable,
	"StopProducerOnDataLossDetected":      durable,
	"BrokerMaxWriteBytes":                 "use MaxMessageBytes",
	"ProducerBatchMaxBytesFn":             "use MaxMessageBytes",
	"MaxBufferedBytes":                    "use ProducerConfig.MaxBufferedBytes",
	"MaxBufferedRecords":                  "use ProducerConfig.MaxBufferedBytes",
	"DefaultProduceTopic":                 "use ProducerConfig.Topic",
	"DefaultProduceTopicAlways":           "use ProducerConfig.Topic",
	"ManualFlushing":                      "a message is sent at once; Flush waits for it",
	"ProducerBatchCompression":            compression,
	"StreamingCompression":                compression,
	"WithCompressor":                      compression,
	"RecordDeliveryTimeout":               untilItsCtx,
	"RecordRetries":                       untilItsCtx,
	"UnknownTopicRetries":                 untilItsCtx,
	"RecordPartitioner":                   placement,
	"RackAwarePartitioning":               placement,
	"ProducerLinger":                      "a message is sent at once, and what comes while a batch is on its way shares the next one",
	"ProduceRequestTimeout":               "a broker is waited for by how much it was sent; use a ctx",
	"ProducerOnDataLossDetected":          "what became of each message is told by its own error",
	"ConcurrentTransactionsBackoff":       noTransactions,
	"TransactionTimeout":                  noTransactions,
	"TransactionalID":                     noTransactions,

	"ConsumeExcludeTopics":      topicsItself,
	"ConsumePartitions":         topicsItself,
	"ConsumeRegex":              topicsItself,
	"ConsumeTopics":             topicsItself,
	"ConsumeResetOffset":        "where messages are lost a Consumer says so, and goes on behind them; use FromBeginning for where to start",
	"ConsumeStartOffset":        "use FromBeginning",
	"DisableFetchCRCValidation": "damaged messages would be handed over",
	"KeepControlRecords":        "they are no messages",
	"KeepRetryableFetchErrors":  "Poll tells what does not heal by itself",

	"ConsumerGroup":               "use GroupID",
	"ShareAckCallback":            noShares,
	"ShareGroup":                  noShares,
	"ShareMaxRecords":             noShares,
	"ShareMaxRecordsStrict":       noShares,
	"GroupProtocol":               "a Consumer is a member of a consumer group",
	"ServerSideBalancer":          "a Consumer uses the classic protocol, beside members that use group.protocol=consumer if brokers let it",
	"AdjustFetchOffsetsFn":        itsOwn,
	"BlockRebalanceOnPoll":        itsOwn,
	"OnPartitionsAssigned":        itsOwn,
	"OnPartitionsCallbackBlocked": itsOwn,
	"OnPartitionsLost":            itsOwn,
	"OnPartitionsRevoked":         itsOwn,
	"DisableAutoCommit":           "a message counts as done when the next is asked for, or by Commit; without a GroupID nothing is stored",
	"GreedyAutoCommit":            "a message counts as done when the next is asked for, or by Commit",
}

// CheckOpts returns what is wrong with opts by these rules.
func CheckOpts(opts []kgo.Opt, rules ...map[string]string) error {
	for _, opt := range opts {
		if opt == nil {
			return errs.New([]error{errs.Config}, "Cluster: Opts holds a nil option")
		}
		name := optName(opt)
		for _, rule := range rules {
			if instead, bad := rule[name]; bad {
				return errs.New([]error{errs.Config}, "Cluster: Opts may not hold kgo.%s: %s", name, instead)
			}
		}
	}
	return nil
}

// optName returns the name of the function that made opt; "" if that is not known, as for
// one that is wrapped. kgo's options do not tell, and what they have set cannot all be read
// back from a client. But each is a struct of one closure, and the runtime names a closure
// after the function that it stands in: "….Dialer.func1", wherever that was inlined.
func optName(opt kgo.Opt) string {
	v := reflect.ValueOf(opt)
	if v.Kind() != reflect.Struct || v.NumField() != 1 || v.Field(0).Kind() != reflect.Func {
		return ""
	}
	f := runtime.FuncForPC(v.Field(0).Pointer())
	if f == nil {
		return ""
	}
	parts := strings.Split(f.Name(), ".")
	if len(parts) < 2 {
		return ""
	}
	return parts[len(parts)-2]
}
