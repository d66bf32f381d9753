package faults

import (
	"flag"
	"fmt"
	"strings"
	"testing"
)

var simMistake = flag.Int("sim.mistake", -1, "let TestSim_Mistakes look which of the seeds show this mistake")

// mistaken runs a seed without consumers, with a small that makes a mistake, and returns
// the promises that it breaks.
func mistaken(t *testing.T, seed uint64, wrong mistake) (broken []string) {
	p := planOf(seed)
	p.direct, p.members = 0, nil
	simulatePlan(t, p, newTally(), func(s *simulation) {
		s.outlet = func(s *simulation) outlet { return newSmall(s, wrong) }
		s.broken = &broken
	})
	return broken
}

func TestSim_Mistakes(t *testing.T) {
	if *simMistake >= 0 {
		for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				if broken := mistaken(t, seed, mistake(*simMistake)); len(broken) > 0 {
					t.Logf("seed %d: %d: %s", seed, len(broken), strings.Join(broken[:min(3, len(broken))], " ## "))
				}
			})
		}
	}
}
