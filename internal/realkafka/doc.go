// Package realkafka runs Apache Kafka 4.3.1 on this machine, for tests and
// benchmarks that must not take a stand-in's word for it: TLS, OAUTHBEARER with
// signed tokens, ACLs, sessions that end, and brokers that can be killed.
//
// It needs a JDK (17 or newer) and, the first time, Maven, which brings the 46 jars
// (44 MB) into the user's cache directory, or into $GRACEDB_CACHE. It runs on Unix
// systems only, since it speaks to the brokers' processes in signals.
package realkafka
