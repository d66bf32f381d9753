// Package realkafka runs Apache Kafka on this machine, for tests and benchmarks
// that must not take a stand-in's word for it: TLS, OAUTHBEARER with signed tokens,
// ACLs, sessions that end, and brokers that can be killed. The version is 4.3.1, or
// that in $GRACEDB_KAFKA: 3.9.1 and 4.4.0 are tried too.
//
// It needs a JDK (17 or newer) and, the first time for each version, Maven, which
// brings some 45 jars (44 MB) into the user's cache directory, or into
// $GRACEDB_CACHE. It runs on Unix systems only, since it speaks to the brokers'
// processes in signals.
package realkafka
