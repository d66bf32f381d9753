package cluster

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// allowedOpts are the options that Cluster.Opts may hold. With those in CheckOpts' rules
// they are all that kgo has.
var allowedOpts = []any{
	kgo.ClientID, kgo.SoftwareNameAndVersion, kgo.RequestTimeoutOverhead, kgo.ConnIdleTimeout, kgo.MaxVersions, kgo.MinVersions,
	kgo.RetryBackoffFn, kgo.RequestRetries, kgo.RetryTimeoutFn, kgo.MetadataMaxAge, kgo.MetadataMinAge, kgo.WithHooks, kgo.WithPools,
	kgo.OnRebootstrapRequired, kgo.DisableClientMetrics, kgo.AlwaysRetryEOF,
	kgo.FetchMaxWait, kgo.FetchMinBytes, kgo.MaxConcurrentFetches, kgo.Rack, kgo.BalanceRacks, kgo.FetchIsolationLevel,
	kgo.DisableFetchSessions, kgo.ConsumePreferringLagFn, kgo.RecheckPreferredReplicaInterval,
	kgo.Balancers, kgo.SessionTimeout, kgo.RebalanceTimeout, kgo.HeartbeatInterval, kgo.RequireStableFetchOffsets, //nolint:staticcheck // some still use it
	kgo.OnOffsetsFetched, kgo.AutoCommitInterval, kgo.AutoCommitMarks, kgo.InstanceID, kgo.AutoCommitCallback,
}

// refusedOpts are those that it may not.
var refusedOpts = []any{
	kgo.Dialer, kgo.DialTimeout, kgo.DialTLSConfig, kgo.SASL, kgo.SeedBrokers, kgo.AllowAutoTopicCreation,
	kgo.ConsiderMissingTopicDeletedAfter, kgo.UserMetricsFn, kgo.WithContext, kgo.WithLogger,
	kgo.BrokerMaxReadBytes, kgo.FetchMaxBytes, kgo.FetchMaxPartitionBytes, kgo.MaxDecompressBatchBytes, kgo.WithDecompressor,
	kgo.AllowIdempotentProduceCancellation, kgo.DisableIdempotentWrite, kgo.MaxProduceRequestsInflightPerBroker, kgo.RequiredAcks,
	kgo.StopProducerOnDataLossDetected, kgo.BrokerMaxWriteBytes, kgo.ProducerBatchMaxBytesFn, kgo.MaxBufferedBytes,
	kgo.MaxBufferedRecords, kgo.DefaultProduceTopic, kgo.DefaultProduceTopicAlways, kgo.ManualFlushing, kgo.ProducerBatchCompression,
	kgo.StreamingCompression, kgo.WithCompressor, kgo.RecordDeliveryTimeout, kgo.RecordRetries, kgo.UnknownTopicRetries,
	kgo.RecordPartitioner, kgo.RackAwarePartitioning, kgo.ProduceRequestTimeout, kgo.ProducerOnDataLossDetected, kgo.ProducerLinger,
	kgo.ConcurrentTransactionsBackoff, kgo.TransactionTimeout, kgo.TransactionalID,
	kgo.ConsumeExcludeTopics, kgo.ConsumePartitions, kgo.ConsumeRegex, kgo.ConsumeTopics, kgo.ConsumeResetOffset, kgo.ConsumeStartOffset,
	kgo.DisableFetchCRCValidation, kgo.KeepControlRecords, kgo.KeepRetryableFetchErrors,
	kgo.ConsumerGroup, kgo.ShareAckCallback, kgo.ShareGroup, kgo.ShareMaxRecords, kgo.ShareMaxRecordsStrict, kgo.GroupProtocol,
	kgo.ServerSideBalancer, kgo.AdjustFetchOffsetsFn, kgo.BlockRebalanceOnPoll, kgo.OnPartitionsAssigned, kgo.OnPartitionsCallbackBlocked,
	kgo.OnPartitionsLost, kgo.OnPartitionsRevoked, kgo.DisableAutoCommit, kgo.GreedyAutoCommit,
}

// made returns the name of a function, and the option that it makes of zeros.
func made(f any) (string, kgo.Opt) {
	v := reflect.ValueOf(f)
	in := make([]reflect.Value, v.Type().NumIn())
	for i := range in {
		in[i] = reflect.Zero(v.Type().In(i))
	}
	call := v.Call
	if v.Type().IsVariadic() {
		call = v.CallSlice
	}
	name := runtime.FuncForPC(v.Pointer()).Name()
	return name[strings.LastIndex(name, ".")+1:], call(in)[0].Interface().(kgo.Opt)
}

// All of kgo's options are either refused by name or let pass.
func TestOptNames(t *testing.T) {
	known := make(map[string]bool)
	for _, f := range allowedOpts {
		name, opt := made(f)
		known[name] = true
		if got := optName(opt); got != name {
			t.Errorf("the name of %s is %q", name, got)
		}
		if err := CheckOpts([]kgo.Opt{opt}, Connecting, notForOpts); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, is := opt.(kgo.ProducerOpt); is {
			t.Errorf("%s is for kgo's own producer, which sends nothing", name)
		}
	}
	rules := maps.Clone(notForOpts)
	maps.Copy(rules, Connecting)
	for _, f := range refusedOpts {
		name, opt := made(f)
		known[name] = true
		err := CheckOpts([]kgo.Opt{kgo.ClientID("x"), opt}, Connecting, notForOpts)
		if !errors.Is(err, errs.Config) || !strings.Contains(err.Error(), "kgo."+name+": "+rules[name]) {
			t.Errorf("%s: %v", name, err)
		}
		delete(rules, name)
	}
	if len(rules) > 0 {
		t.Errorf("kgo has no such options: %v", slices.Collect(maps.Keys(rules)))
	}
	// These are made of others.
	for _, f := range []any{kgo.DialTLS, kgo.ProducerBatchMaxBytes, kgo.RetryTimeout} {
		name, _ := made(f)
		known[name] = true
	}
	for _, name := range optsOfKgo(t) {
		if !known[name] {
			t.Errorf("kgo.%s is new: is it for Cluster.Opts?", name)
		}
	}
}

// optsOfKgo returns the names of all functions in kgo's config.go that return an option.
func optsOfKgo(t *testing.T) (names []string) {
	t.Helper()
	path, _ := runtime.FuncForPC(reflect.ValueOf(kgo.ClientID).Pointer()).FileLine(reflect.ValueOf(kgo.ClientID).Pointer())
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Skipf("kgo's source is not at hand (built with -trimpath?): %v", err)
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || f.Type.Results.NumFields() != 1 {
			continue
		}
		if result, ok := f.Type.Results.List[0].Type.(*ast.Ident); ok && ast.IsExported(f.Name.Name) && strings.HasSuffix(result.Name, "Opt") {
			names = append(names, f.Name.Name)
		}
	}
	if len(names) < 100 {
		t.Errorf("kgo has %d options?", len(names))
	}
	return names
}
