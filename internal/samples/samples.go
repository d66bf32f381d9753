// Package samples makes event files like those that search pipelines upload to
// GraceDB, of any size, from a seed. The physics is plausible at a glance and no
// more; the formats are real: igwn-ligolw reads the XML (testdata/check_ligolw.py),
// and of the text GraceDB's reader makes what it should (testdata/check_cwb.py).
package samples

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math"
	"math/rand/v2"
)

//go:generate go run ./write -dir ../../testdata/events

// An Event is a file and what it is submitted as.
type Event struct {
	Group, Pipeline, Search string
	Filename                string
	Data                    []byte
}

// Events returns the events whose files are in testdata/events.
func Events() []Event {
	return []Event{
		{Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: Coinc(50_000, 1)},
		{Group: "CBC", Pipeline: "pycbc", Search: "AllSky", Filename: "coinc.xml.gz", Data: gzipped(Coinc(30_000, 2))},
		{Group: "Burst", Pipeline: "CWB", Search: "AllSky", Filename: "trigger.txt", Data: CWB(3)},
		{Group: "CBC", Pipeline: "aframe", Search: "AllSky", Filename: "event.json", Data: Aframe(4)},
	}
}

// LargeEvents returns coinc files with noise spectra, of 360 and 800 kB.
func LargeEvents() []Event {
	return []Event{
		{Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc-360kB.xml", Data: Coinc(360_000, 5)},
		{Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc-800kB.xml", Data: Coinc(800_000, 6)},
	}
}

// gzipped compresses data without a name or time, so that it depends on nothing
// else than data and the version of compress/gzip.
func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a constant level and a buffer: neither fails
	}
	return b.Bytes()
}

// A source is what all of one event comes from.
type source struct {
	*rand.Rand
	gps   int // seconds
	nanos int
	snrs  [3]float64 // of ifos
}

var ifos = [3]string{"H1", "L1", "V1"}

func newSource(seed uint64) source {
	r := rand.New(rand.NewPCG(seed, 0x6772616365646221))
	return source{
		Rand:  r,
		gps:   1_420_000_000 + r.IntN(10_000_000), // in the fourth observing run
		nanos: r.IntN(1_000_000_000),
		snrs:  [3]float64{6 + 6*r.Float64(), 6 + 6*r.Float64(), 3 + 3*r.Float64()},
	}
}

// networkSNR returns the SNRs of all detectors, added in quadrature.
func (s source) networkSNR() float64 {
	sum := 0.0
	for _, snr := range s.snrs {
		sum += snr * snr
	}
	return math.Sqrt(sum)
}

// Aframe returns a trigger of about 200 bytes in JSON.
func Aframe(seed uint64) []byte {
	s := newSource(seed)
	return fmt.Appendf(nil, `{"gpstime": %d.%09d, "detection_statistic": %.6f, "far": %.6e, "ifos": "H1,L1", `+
		`"channels": "H1:GDS-CALIB_STRAIN,L1:GDS-CALIB_STRAIN", "end_time": %d, "end_time_ns": %d}`,
		s.gps, s.nanos, s.networkSNR(), 1e-7*s.Float64(), s.gps, s.nanos)
}

// CWB returns a trigger in the text form of coherent WaveBurst: key and values, one
// for each detector where it has two, then the sky map.
func CWB(seed uint64) []byte {
	s := newSource(seed)
	var b bytes.Buffer
	line := func(key, format string, values ...any) { fmt.Fprintf(&b, key+": "+format+"\n", values...) }
	two := func(center, spread float64) []any {
		return []any{center + spread*s.Float64(), center + spread*s.Float64()}
	}
	start, frequency := float64(s.gps)+float64(s.nanos)/1e9, 80+200*s.Float64()

	line("nevent", "%d", 1)
	line("ndim", "%d", 2)
	line("run", "%d", 3)
	line("rho", "%.6g", s.networkSNR()/math.Sqrt2)
	line("netCC", "%.6g %.6g", two(0.7, 0.25)...)
	line("netED", "%.6g", 0.05*s.Float64())
	line("penalty", "%.6g", 1+0.1*s.Float64())
	line("likelihood", "%.6g", s.networkSNR()*s.networkSNR())
	line("ecor", "%.6g", s.networkSNR()*s.networkSNR()*0.8)
	line("factor", "%d", 1)
	line("mchirp", "%.6g", 10+30*s.Float64())
	line("norm", "%.6g", 2+s.Float64())
	line("ifo", "L1 H1")
	line("eventID", "1 0")
	line("rate", "64 64")
	line("volume", "%d %d", 40+s.IntN(100), 40+s.IntN(100))
	line("size", "%d %d", 30+s.IntN(40), 0)
	line("lag", "0 0 0")
	line("slag", "0 0 0")
	line("phi", "%.4f 0 %.4f %.4f", 360*s.Float64(), 360*s.Float64(), 360*s.Float64())
	line("theta", "%.4f 0 %.4f %.4f", 180*s.Float64(), 180*s.Float64()-90, 180*s.Float64())
	line("psi", "%.4f", 180*s.Float64())
	line("strain", "%.6e 0", 1e-22*(1+s.Float64()))
	line("hrss", "%.6e %.6e", two(1e-22, 1e-22)...)
	line("noise", "%.6e %.6e", two(5e-24, 1e-24)...)
	line("time", "%.6f %.6f", start, start-0.007)
	line("gps", "%d.0 %d.0", s.gps/60*60, s.gps/60*60)
	line("left", "%.4f %.4f", two(10, 5)...)
	line("right", "%.4f %.4f", two(160, 5)...)
	line("segment", "%d.0000 %d.0000 %d.0000 %d.0000", s.gps/60*60, s.gps/60*60+180, s.gps/60*60, s.gps/60*60+180)
	line("duration", "%.6f %.6f", two(0.02, 0.1)...)
	line("frequency", "%.4f %.4f", frequency, frequency+s.Float64())
	line("low", "%.4f", frequency/2)
	line("high", "%.4f", frequency*1.7)
	line("bandwidth", "%.4f %.4f", two(30, 10)...)
	line("snr", "%.6g %.6g", s.snrs[1]*s.snrs[1], s.snrs[0]*s.snrs[0])
	line("null", "%.6g %.6g", two(10, 10)...)
	line("far", "%.6e", 1e-8*s.Float64())
	// Without this line GraceDB takes the file for one of those of old, of which the
	// false alarm rate stands under "#significance" only.
	line("event_time", "%.6f", start)
	b.WriteString("search=r\n#significance based on the last day\nwat version = 6.4.6.0\n")

	const pixels = 96
	fmt.Fprintf(&b, "map_lenght = %d\n", pixels) // the key is spelled so
	b.WriteString("#skyID theta DEC step phi R.A step probability cumulative\n")
	cumulative := 0.0
	for i := range pixels {
		probability := 0.1 * math.Exp(-float64(i)/10)
		cumulative += probability
		theta, phi := 180*s.Float64(), 360*s.Float64()
		fmt.Fprintf(&b, "%6d %8.4f %8.4f %6.3f %8.4f %8.4f %6.3f %.6e %.6e\n",
			s.IntN(196608), theta, 90-theta, 0.458, phi, math.Mod(phi+118.2, 360), 0.458, probability, cumulative)
	}
	return b.Bytes()
}
