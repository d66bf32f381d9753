package gracetest

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A reading is what the server finds in an event's file.
type reading struct {
	GPSTime, FAR, Likelihood *float64
	Nevents                  *int64
	Instruments              string
	Extra                    map[string]any // extra_attributes
	Warnings                 []string
}

// Pipelines by the kind of file that the server reads of them. Files of others are
// stored, and nothing is said about it.
var (
	cbcPipelines  = strings.Fields("gstlal spiir pycbc PyGRB MBTA MBTAOnline")
	cwbPipelines  = strings.Fields("CWB CWB2G")
	jsonPipelines = strings.Fields("MLy aframe oLIB")
	grbPipelines  = strings.Fields("Fermi Swift SNEWS INTEGRAL AGILE CHIME SVOM")
)

// read reads a file as the server does. Its error becomes the warning that no alert
// was issued, and no label is set then.
func read(pipeline, filename string, data []byte) (reading, error) {
	switch {
	case strings.HasPrefix(pipeline, "MBTA") && !strings.Contains(filename, ".xml"):
		return reading{}, nil // its files were of two kinds once
	case slices.Contains(cbcPipelines, pipeline):
		return readCoinc(data)
	case slices.Contains(cwbPipelines, pipeline):
		return readCWB(data)
	case slices.Contains(jsonPipelines, pipeline):
		return readJSON(pipeline, data)
	case slices.Contains(grbPipelines, pipeline):
		return readVOEvent(data)
	case pipeline == "HardwareInjection":
		return readInjection(data)
	}
	return reading{}, nil
}

// errUnreadable is what becomes of a LIGO_LW file that cannot be read: the reason is
// in the event's log only.
var errUnreadable = errors.New("cannot unpack non-iterable NoneType object")

// maxFile is what is read of a compressed file.
const maxFile = 256 << 20

func readCoinc(data []byte) (r reading, err error) {
	r.Extra = map[string]any{"CoincInspiral": map[string]any{
		"ifos": "", "end_time": nil, "end_time_ns": nil, "mass": nil, "mchirp": nil, "minimum_duration": nil, "snr": nil,
		"false_alarm_rate": nil, "combined_far": nil,
	}}
	tables, err := readTables(data)
	if err != nil {
		return r, errUnreadable
	}
	coincs, events, sngls := tables["coinc_inspiral"], tables["coinc_event"], tables["sngl_inspiral"]
	if len(coincs) == 0 {
		r.Warnings = append(r.Warnings, "Could not extract coinc inspiral table.")
		return r, nil
	}
	coinc := coincs[0]
	r.GPSTime, r.FAR = gpsOf(coinc, "end_time"), float(coinc["combined_far"])
	if len(events) == 0 {
		r.Warnings = append(r.Warnings, "Could not extract coinc event table.")
		return r, nil
	}
	r.Instruments, _ = coinc["ifos"].(string)
	r.Likelihood = float(events[0]["likelihood"])
	if n, ok := events[0]["nevents"].(int64); ok {
		r.Nevents = &n
	}
	attributes := r.Extra["CoincInspiral"].(map[string]any)
	for name := range attributes {
		attributes[name] = coinc[name]
	}
	if sngls == nil {
		return r, errors.New("document must contain exactly one sngl_inspiral table")
	}
	var singles []map[string]any
	for _, row := range sngls {
		single := map[string]any{}
		for name, value := range row {
			if value != nil {
				single[name] = value
			}
		}
		singles = append(singles, single)
	}
	if singles != nil {
		r.Extra["SingleInspiral"] = singles
	}
	return r, nil
}

// gpsOf is a time of a row, of which the nanoseconds are in a column of their own.
func gpsOf(row map[string]any, column string) *float64 {
	s, ok := row[column].(int64)
	if !ok {
		return nil
	}
	ns, _ := row[column+"_ns"].(int64)
	return new(float64(s) + float64(ns)/1e9)
}

func float(v any) *float64 {
	switch v := v.(type) {
	case float64:
		return &v
	case int64:
		return new(float64(v))
	}
	return nil
}

// inflate goes by what a file begins with, not by its name. (The server knows xz as
// well.)
func inflate(data []byte) ([]byte, error) {
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(r)
	case bytes.HasPrefix(data, []byte("BZh")):
		r = bzip2.NewReader(r)
	default:
		return data, nil
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxFile))
}

// readJSON reads what MLy, aframe and oLIB upload.
func readJSON(pipeline string, data []byte) (r reading, err error) {
	if err := checkUTF8(data); err != nil {
		return r, err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return r, errors.New("Expecting value: line 1 column 1 (char 0)") //nolint:staticcheck // Python's words
	}
	far, ifos := "far", "ifos"
	if pipeline == "oLIB" {
		far, ifos = "FAR", "instruments"
	}
	instruments, ok := doc[ifos]
	switch {
	case !ok && pipeline == "oLIB":
		return r, errors.New("'instruments'")
	case !ok:
		return r, errors.New(`null value in column "instruments" of relation "events_event" violates not-null constraint`)
	}
	r.Instruments = fmt.Sprint(instruments) // a list becomes its text
	r.GPSTime, r.FAR = float(doc["gpstime"]), float(doc[far])
	if pipeline == "oLIB" {
		r.Likelihood, r.Nevents = float(doc["likelihood"]), new(int64(1))
		return r, nil
	}
	burst := map[string]any{"ifos": instruments, "SNR": doc["SNR"]}
	for name := range strings.FieldsSeq("central_freq central_time bandwidth duration detection_statistic scores") {
		if v, ok := doc[name]; ok {
			burst[name] = v
		}
	}
	r.Extra = map[string]any{"MLyBurst": burst}
	return r, nil
}

func checkUTF8(data []byte) error {
	for at := 0; at < len(data); {
		c, size := utf8.DecodeRune(data[at:])
		if c == utf8.RuneError && size <= 1 {
			return fmt.Errorf("'utf-8' codec can't decode byte %#02x in position %d: invalid start byte", data[at], at)
		}
		at += size
	}
	return nil
}

// readVOEvent takes the time from an alert of other observatories.
func readVOEvent(data []byte) (r reading, err error) {
	var doc struct {
		XMLName xml.Name
		Time    string `xml:"WhereWhen>ObsDataLocation>ObservationLocation>AstroCoords>Time>TimeInstant>ISOTime"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil || doc.XMLName.Local != "VOEvent" {
		return r, errors.New("Start tag expected, '<' not found, line 1, column 1 (<string>, line 1)")
	}
	at, err := time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(strings.TrimSpace(doc.Time), "Z"))
	if err != nil {
		return r, errors.New("'NoneType' object has no attribute 'text'")
	}
	r.GPSTime = new(gpsTime(at))
	r.Extra = map[string]any{"GRB": map[string]any{}}
	return r, nil
}

// gpsTime counts since 1980; since 2017 GPS is 18 s ahead of UTC.
func gpsTime(t time.Time) float64 { return float64(t.UnixMicro())/1e6 - 315_964_800 + 18 }

// readInjection reads JSON, or else LIGO_LW.
func readInjection(data []byte) (r reading, err error) {
	var doc struct {
		GPSTime, FAR *float64
		Instruments  string
	}
	if json.Unmarshal(data, &doc) == nil {
		r.GPSTime, r.FAR, r.Instruments = doc.GPSTime, doc.FAR, doc.Instruments
		return r, nil
	}
	tables, err := readTables(data)
	if err != nil {
		return r, err
	}
	if len(tables["sim_inspiral"]) == 0 {
		return r, errors.New("document must contain exactly one sim_inspiral table")
	}
	r.GPSTime = gpsOf(tables["sim_inspiral"][0], "geocent_end_time")
	return r, nil
}
