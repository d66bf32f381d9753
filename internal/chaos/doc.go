// Package chaos tests this library on three brokers of Apache Kafka 4.3.1 that are
// killed, halted and restarted, over connections that are cut and held, with keys
// and tokens that change. Its tests run with GRACEDB_INTEROP=1, since they need
// Java and Maven. All of them, with 90 seconds of chaos:
//
//	GRACEDB_INTEROP=1 go test -race -timeout 15m ./internal/chaos
//
// An hour of chaos, with a table of its sums:
//
//	GRACEDB_INTEROP=1 go test -timeout 90m -run TestChaos ./internal/chaos -chaos.duration 1h -chaos.report sums.md
//
// The schedule follows from a seed, which is printed; -chaos.seed takes it again.
// With -chaos.bare a plain franz-go producer meets the same, and is counted
// instead of judged.
package chaos
