package gracedb

import "github.com/gracedb-go/gracedb/internal/topicname"

// DeriveInstanceName returns the first label of the host in serviceURL, in lower
// case: "gracedb-dev" for "https://gracedb-dev.ligo.org/api/". The error, an
// ErrConfig, says that there is no host, or that its first label cannot be part of
// a Kafka topic name, as with "https://[::1]/".
func DeriveInstanceName(serviceURL string) (string, error) { return topicname.Instance(serviceURL) }

// MakeTopicName returns the topic of a pipeline on an instance: the two joined by
// a dot, as they are. Event topics have pipelines in lower case.
func MakeTopicName(instance, pipeline string) string { return topicname.Join(instance, pipeline) }

// ParseTopicName splits a topic name at its first dot: "gracedb-dev.gstlal" into
// "gracedb-dev" and "gstlal". A name without a dot is an ErrConfig.
func ParseTopicName(topic string) (instance, pipeline string, err error) {
	return topicname.Split(topic)
}
