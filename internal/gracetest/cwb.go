package gracetest

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// readCWB reads the text form of coherent WaveBurst: lines "key: value value…". A
// file without event_time or far is taken for one of those of old, whose rate stands
// on the line after "#significance". What is missing is nothing to complain about: of
// a file without keys the rate is 0, and so is the time.
func readCWB(data []byte) (r reading, err error) {
	if err := checkUTF8(data); err != nil {
		return r, err
	}
	lines := strings.Split(string(data), "\n")
	raw := map[string][]string{}
	for _, line := range lines {
		key, values, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		words := strings.Fields(key)
		if len(words) == 0 {
			return r, errors.New("list index out of range")
		}
		raw[words[0]] = strings.Fields(values)
	}
	if raw["event_time"] == nil || raw["far"] == nil {
		if err := asOfOld(raw, lines); err != nil {
			return r, err
		}
	}
	value := func(key string, at int) *float64 { // the first error counts
		words := raw[key]
		if words == nil || err != nil {
			return nil
		}
		if at >= len(words) {
			err = errors.New("list index out of range")
			return nil
		}
		f, e := strconv.ParseFloat(words[at], 64)
		if e != nil && !errors.Is(e, strconv.ErrRange) {
			err = errors.New("could not convert string to float: '" + words[at] + "'")
		}
		return &f
	}
	r.Likelihood, r.FAR, r.GPSTime = value("likelihood", 0), value("far", 0), value("event_time", 0)
	ifos, times := sortedTimes(raw["ifo"], raw["time"])
	r.Instruments = ifos
	snr := 0.0
	if r.Likelihood != nil && *r.Likelihood >= 0 {
		snr = math.Sqrt(*r.Likelihood)
	}
	r.Extra = map[string]any{"MultiBurst": map[string]any{
		"ifos": ifos, "single_ifo_times": times, "duration": value("duration", 0), "strain": value("strain", 0),
		"central_freq": value("frequency", 0), "bandwidth": value("bandwidth", 0), "amplitude": value("rho", 0), "snr": snr,
		"mchirp": value("mchirp", 0), "confidence": nil, "false_alarm_rate": r.FAR,
		"ligo_axis_ra": value("phi", 2), "ligo_axis_dec": value("theta", 2), "ligo_angle": nil, "ligo_angle_sig": nil,
	}}
	if err != nil {
		return reading{}, err
	}
	return r, nil
}

// asOfOld fills in what a file of old has elsewhere.
func asOfOld(raw map[string][]string, lines []string) error {
	second := func(words []string) ([]string, error) {
		switch {
		case words == nil:
			return []string{"0"}, nil
		case len(words) < 2:
			return nil, errors.New("list index out of range")
		}
		return words[1:2], nil
	}
	var err error
	if raw["mchirp"], err = second(raw["chirp"]); err != nil {
		return err
	}
	raw["event_time"] = []string{"0"}
	if len(raw["time"]) > 0 {
		raw["event_time"] = raw["time"][:1]
	}
	raw["far"] = []string{"0"}
	for _, span := range []string{"day", "week"} { // that of the week counts, if there is one
		for i, line := range lines {
			if !strings.HasPrefix(line, "#significance based on the last "+span) {
				continue
			}
			raw["far"] = []string{"1"}
			if i+1 < len(lines) {
				if words := strings.Fields(lines[i+1]); len(words) > 1 {
					if _, err := strconv.ParseFloat(words[1], 64); err == nil {
						raw["far"] = words[1:2]
					}
				}
			}
		}
	}
	return nil
}

// sortedTimes sorts detectors, and their times with them.
func sortedTimes(ifos, times []string) (names, at string) {
	type pair struct{ ifo, time string }
	var pairs []pair
	for i := range min(len(ifos), len(times)) {
		pairs = append(pairs, pair{ifos[i], times[i]})
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return strings.Compare(a.ifo, b.ifo) })
	var sorted []string
	for _, p := range pairs {
		sorted = append(sorted, p.time)
	}
	return strings.Join(slices.Sorted(slices.Values(ifos)), ","), strings.Join(sorted, ",")
}
