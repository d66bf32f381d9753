// Package faults holds the tests of what must be true while something goes wrong:
// one for each row of the fault bar, those of the findings about ligo-gracedb, and a
// simulation that mixes faults of Kafka at random. README.md lists the rows. Files of
// package faults_test know the public API alone, and begin with internal/testrig.
//
// In the simulation each seed is a plan: brokers, senders, consumers, and faults
// that begin and end in virtual minutes or hours. A history checker and the bounds
// that callers are promised judge what comes of it. The default is 200 seeds;
//
//	go test ./internal/faults -run TestSimulation -timeout 2h -sim.seeds 10000
//
// runs as many as are wanted, from -sim.first on. A failure prints its plan, and
//
//	go test ./internal/faults -run TestSimulation -v -sim.seed 4711
//
// does it again, step by step. The plan is the same each time; the order in which
// goroutines run is not, so that a rare failure may want -count. With -sim.report a
// summary is written to a file; with -sim.bare the same plans are carried out with
// franz-go alone instead of a Producer, for comparison.
package faults
