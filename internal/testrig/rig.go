package testrig

import (
	"testing"
	"testing/synctest"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A Rig is a GraceDB and a broker that trust the same tokens, with a Client and a
// Producer of them.
type Rig struct {
	*Service
	Kafka    *kafkatest.Cluster
	Producer *gracedb.Producer
}

// A RigConfig configures a rig; what it leaves out is as usual.
type RigConfig struct {
	Service  gracetest.Config
	Kafka    kafkatest.Config
	Client   func(*gracedb.ClientConfig)
	Producer func(*gracedb.ProducerConfig)
}

// NewRig starts a rig on this machine's network, or, if cfg says that the service
// is virtual, all of it in memory.
func NewRig(t testing.TB, cfg RigConfig) *Rig {
	t.Helper()
	virtual := cfg.Service.Virtual
	s := NewService(t, cfg.Service, cfg.Client)
	instance, err := gracedb.DeriveInstanceName(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Kafka.Virtual, cfg.Kafka.Issuer = virtual, s.Issuer()
	cfg.Kafka.Plaintext = cfg.Kafka.Plaintext || virtual
	if cfg.Kafka.Topics == nil {
		cfg.Kafka.Topics = map[string]int{instance + ".gstlal": 1, instance + ".test": 1, instance + ".mly": 1}
	}
	k, err := kafkatest.Start(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	pc := gracedb.ProducerConfig{Cluster: gracedb.Cluster{Brokers: k.Addrs(), CAFile: k.CAFile(), Plaintext: cfg.Kafka.Plaintext}}
	if virtual {
		pc.Cluster.Dial = k.Dial
	}
	if cfg.Producer != nil {
		cfg.Producer(&pc)
	}
	p, err := s.Client.NewProducer(t.Context(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return &Rig{s, k, p}
}

// InRig runs f with a rig in memory, where time is virtual.
func InRig(t *testing.T, cfg RigConfig, f func(*testing.T, *Rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Service.Virtual, cfg.Service.Plain = true, true
		f(t, NewRig(t, cfg))
	})
}

// Messages returns what is in the log of a topic of the instance.
func (r *Rig) Messages(t testing.TB, pipeline string) []gracedb.Message {
	t.Helper()
	instance, err := gracedb.DeriveInstanceName(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	records, err := r.Kafka.Records(instance + "." + pipeline)
	if err != nil {
		t.Fatal(err)
	}
	var out []gracedb.Message
	for _, rec := range records {
		out = append(out, gracedb.Message{
			Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Key: rec.Key, Value: rec.Value,
		})
	}
	return out
}
