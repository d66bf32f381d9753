// Package interop proves this library against what it has to live with: Apache
// Kafka itself, and ligo-gracedb 2.16.1, the Python package that is in use today,
// on the other side of the topic. Its tests run with GRACEDB_INTEROP=1, since they
// need Java, Maven and Python; what is exported here runs the Python peer for them
// and for the benchmarks.
package interop
