package faults

import (
	"flag"
	"fmt"
	"regexp"
	"testing"
)

var simMistake = flag.Int("sim.mistake", -1, "let TestSim_Mistakes look which of -sim.seeds show this one")

// mistakes are what the judge has to see: what it says, and the seeds that show it. Which
// of them does depends on the scheduler, too.
var mistakes = []struct {
	wrong mistake
	name  string
	says  string
	seeds []uint64
}{
	{windowLoss, "a batch without a number behind one in doubt", "is delivered .* 0 times in the log", []uint64{67, 192, 159, 63, 149}},
	{falseProof, "other records under numbers that NOT_ENOUGH_REPLICAS was said to", "is (delivered|failed) .* [0-2] times in the log", []uint64{53, 72, 44, 99, 71}},
	{deposedProof, "the same with NOT_LEADER_OR_FOLLOWER", "is (delivered|failed) .* [0-2] times in the log", []uint64{53, 23, 59, 44, 71}},
	{oldBatch, "a batch for the old topic under the new id", "is delivered .* 0 times in the log", []uint64{100, 95, 81, 94, 47}},
	{sameEpoch, "no new epoch after a batch was given up", "is delivered .* 0 times in the log", []uint64{53, 99, 131, 77}},
	{overtaken, "overtaking within a key", "is at .* behind", []uint64{44, 36, 41, 99, 100}},
	{falseFailure, "failed, but in the log", "is failed .* 1 times in the log", []uint64{100, 45, 50}},
	{doubling, "a batch in doubt under new numbers", "2 times in the log", []uint64{48, 52, 49}},
}

// mistaken runs a seed without consumers, with a small that makes a mistake, and returns
// the promises that it breaks. How late it is does not matter.
func mistaken(t *testing.T, seed uint64, wrong mistake) (broken []string) {
	p := planOf(seed)
	p.direct, p.members = 0, nil
	simulatePlan(t, p, newTally(), func(s *simulation) {
		s.outlet = func(s *simulation) outlet { return newSmall(s, wrong) }
		s.broken = &broken
	})
	return broken
}

// about is what breaches say that are not about time.
var about = regexp.MustCompile(`in the log|behind|elsewhere|told twice|never sent|has no outcome`)

// The judge sees each mistake that an idempotent producer can make, in some seed, and
// none where none is made in the same seed.
func TestSim_Mistakes(t *testing.T) {
	if *simMistake >= 0 {
		lookFor(t, mistake(*simMistake))
		return
	}
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			says := regexp.MustCompile(m.says)
			for _, seed := range m.seeds {
				for _, b := range mistaken(t, seed, none) {
					if about.MatchString(b) {
						t.Errorf("seed %d, without the mistake: %s", seed, b)
					}
				}
				for _, b := range mistaken(t, seed, m.wrong) {
					if says.MatchString(b) {
						t.Logf("seed %d: %s", seed, b)
						return
					}
				}
			}
			t.Errorf("not seen in %v", m.seeds)
		})
	}
}

func lookFor(t *testing.T, wrong mistake) {
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			for _, b := range mistaken(t, seed, wrong) {
				if about.MatchString(b) {
					t.Logf("seed %d: %s", seed, b)
					return
				}
			}
		})
	}
}
