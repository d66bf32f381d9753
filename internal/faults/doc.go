// Package faults holds the tests of what must be true while something goes wrong:
// one for each row of the fault bar that concerns Kafka, and a simulation that mixes
// them at random. README.md lists the rows.
package faults
