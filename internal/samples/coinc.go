package samples

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Coinc returns a coincidence of three detectors as gstlal uploads it: LIGO_LW
// tables, the SNR time series around each trigger and, where there is room, the
// noise spectra. It has about size bytes, and at least the 14 kB of its tables.
func Coinc(size int, seed uint64) []byte {
	s := newSource(seed)
	var b bytes.Buffer
	b.WriteString(`<?xml version='1.0' encoding='utf-8'?>
<!DOCTYPE LIGO_LW SYSTEM "http://ldas-sw.ligo.caltech.edu/doc/ligolwAPI/html/ligolw_dtd.txt">
<LIGO_LW>
`)
	s.writeTables(&b)

	const end = "</LIGO_LW>\n"
	room := size - b.Len() - len(end)
	series := room / len(ifos)
	if room > 64_000 {
		series = 12_000 // as in files with spectra
	}
	for i := range ifos {
		s.writeSNR(&b, i, series)
	}
	if room > 64_000 {
		b.WriteString("\t<LIGO_LW Name=\"psd\">\n")
		left := size - b.Len() - len("\t</LIGO_LW>\n") - len(end)
		for i := range ifos {
			s.writePSD(&b, i, left/len(ifos))
		}
		b.WriteString("\t</LIGO_LW>\n")
	}
	b.WriteString(end)
	return b.Bytes()
}

// A table is a LIGO_LW table: "name type" columns, and cells as they are written.
type table struct {
	name    string
	columns []string
	rows    [][]any
}

func (t table) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\t<Table Name=\"%s:table\">\n", t.name)
	for _, c := range t.columns {
		name, kind, _ := strings.Cut(c, " ")
		fmt.Fprintf(b, "\t\t<Column Name=\"%s\" Type=\"%s\"/>\n", name, kind)
	}
	fmt.Fprintf(b, "\t\t<Stream Name=\"%s:table\" Type=\"Local\" Delimiter=\",\">", t.name)
	for i, row := range t.rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n\t\t\t")
		for j, cell := range row {
			if j > 0 {
				b.WriteByte(',')
			}
			switch cell := cell.(type) {
			case string:
				b.WriteString(escape(`"` + strings.ReplaceAll(cell, `"`, `\"`) + `"`))
			case float64:
				b.Write(strconv.AppendFloat(nil, cell, 'g', -1, 64))
			case nil: // null
			default:
				fmt.Fprint(b, cell)
			}
		}
	}
	b.WriteString("\n\t\t</Stream>\n\t</Table>\n")
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

func (s source) writeTables(b *bytes.Buffer) {
	const version = "1.13.0"
	start := s.gps - 86_400
	table{"process", []string{
		"program lstring", "version lstring", "cvs_repository lstring", "cvs_entry_time int_4s", "comment lstring",
		"is_online int_4s", "node lstring", "username lstring", "unix_procid int_4s", "start_time int_4s",
		"end_time int_4s", "jobid int_4s", "domain lstring", "ifos lstring", "process_id int_8s",
	}, [][]any{
		{"gstlal_inspiral", version, "gstlal", start - 1_000_000, "sample event, no detection", 1, "node0001", "gstlal", 10_000 + s.IntN(50_000), start, s.gps, 0, "", "H1,L1,V1", 0},
		{"gstlal_ll_inspiral_event_uploader", version, "gstlal", start - 1_000_000, nil, 1, "node0002", "gstlal", 10_000 + s.IntN(50_000), start, nil, 0, "", "H1,L1,V1", 1},
	}}.write(b)
	table{"process_params", []string{
		"program lstring", "process:process_id int_8s", "param lstring", "type lstring", "value lstring",
	}, s.processParams()}.write(b)

	s.writeSngls(b)

	far := 1e-9 * s.Float64()
	table{"coinc_inspiral", []string{
		"coinc_event:coinc_event_id int_8s", "ifos lstring", "end_time int_4s", "end_time_ns int_4s", "mass real_8",
		"mchirp real_8", "minimum_duration real_8", "snr real_8", "false_alarm_rate real_8", "combined_far real_8",
	}, [][]any{{0, "H1,L1,V1", s.gps, s.nanos, 2.9 + s.Float64(), 1.2 + 0.1*s.Float64(), 40 + s.Float64(), s.networkSNR(), far / 10, far}}}.write(b)
	table{"coinc_definer", []string{
		"coinc_def_id int_8s", "search lstring", "search_coinc_type int_4u", "description lstring",
	}, [][]any{{0, "inspiral", 0, "sngl_inspiral<-->sngl_inspiral coincidences"}}}.write(b)
	table{"coinc_event", []string{
		"process:process_id int_8s", "coinc_definer:coinc_def_id int_8s", "coinc_event_id int_8s",
		"time_slide:time_slide_id int_8s", "instruments lstring", "nevents int_4u", "likelihood real_8",
	}, [][]any{{0, 0, 0, 0, "H1,L1,V1", 3, 20 + 10*s.Float64()}}}.write(b)
	maps, slides := make([][]any, 0, 3), make([][]any, 0, 3)
	for i, ifo := range ifos {
		maps = append(maps, []any{0, "sngl_inspiral", i})
		slides = append(slides, []any{0, 0, ifo, 0})
	}
	table{"coinc_event_map", []string{
		"coinc_event:coinc_event_id int_8s", "table_name char_v", "event_id int_8s",
	}, maps}.write(b)
	table{"time_slide", []string{
		"process:process_id int_8s", "time_slide_id int_8s", "instrument lstring", "offset real_8",
	}, slides}.write(b)
	s.writeSegments(b)
}

// processParams returns the command line of a process: many rows of little.
func (s source) processParams() [][]any {
	var rows [][]any
	add := func(name string, value any) {
		kind := "lstring"
		switch value.(type) {
		case int:
			kind = "int_8s"
		case float64:
			kind = "real_8"
		case nil:
			kind = ""
		}
		row := []any{"gstlal_inspiral", 0, "--" + name, kind, nil}
		if kind == "" {
			row[3] = nil
		}
		if value != nil {
			row[4] = fmt.Sprint(value)
		}
		rows = append(rows, row)
	}
	for _, ifo := range ifos {
		add("channel-name", ifo+"=GDS-CALIB_STRAIN_CLEAN")
		add("shared-memory-partition", fmt.Sprintf("%s=%s_Data", ifo, ifo))
		add("state-channel-name", ifo+"=GDS-CALIB_STATE_VECTOR")
		add("svd-bank", fmt.Sprintf("%s:%s-%04d_SVD-%d.xml.gz", ifo, ifo, s.IntN(1000), s.gps/100_000*100_000))
		add("time-slide-offset", ifo+"=0")
	}
	add("data-source", "devshm")
	add("track-psd", nil)
	add("psd-fft-length", 4)
	add("ht-gate-threshold", 15.0+s.Float64())
	add("coincidence-threshold", 0.005)
	add("min-instruments", 1)
	add("far-trials-factor", 2)
	add("gracedb-far-threshold", 2.3e-5)
	add("gracedb-group", "Test")
	add("gracedb-search", "AllSky")
	add("ranking-stat-pdf", "H1L1V1-RANKING_STAT_PDFS.xml.gz")
	for i := range 40 {
		add("ranking-stat-input", fmt.Sprintf("H1L1V1-%04d_DIST_STATS-%d.xml.gz", i, s.gps/100_000*100_000))
	}
	return rows
}

func (s source) writeSngls(b *bytes.Buffer) {
	columns := []string{
		"process:process_id int_8s", "ifo lstring", "search lstring", "channel lstring", "end_time int_4s",
		"end_time_ns int_4s", "end_time_gmst real_8", "template_duration real_8", "eff_distance real_4",
		"coa_phase real_4", "mass1 real_4", "mass2 real_4", "mchirp real_4", "mtotal real_4", "eta real_4",
		"tau0 real_4", "tau3 real_4", "f_final real_4", "snr real_4", "chisq real_4", "chisq_dof int_4s",
		"bank_chisq real_4", "bank_chisq_dof int_4s", "sigmasq real_8", "Gamma0 real_4", "Gamma1 real_4",
		"Gamma2 real_4", "spin1x real_4", "spin1y real_4", "spin1z real_4", "spin2x real_4", "spin2y real_4",
		"spin2z real_4", "event_id int_8s",
	}
	m1, m2 := 1.4+0.5*s.Float64(), 1.2+0.2*s.Float64()
	total := m1 + m2
	eta := m1 * m2 / (total * total)
	spin1, spin2 := 0.05*s.Float64(), 0.05*s.Float64()
	var rows [][]any
	for i, ifo := range ifos {
		rows = append(rows, []any{
			0, ifo, nil, "GDS-CALIB_STRAIN_CLEAN", s.gps,
			s.nanos/2 + i*7_000_000, math.Mod(float64(s.gps)*7.2921158e-5, 2*math.Pi), 40 + s.Float64(), 100 + 100*s.Float64(),
			2*math.Pi*s.Float64() - math.Pi, m1, m2, total * math.Pow(eta, 0.6), total, eta,
			30 + s.Float64(), 1 + s.Float64(), 1024, s.snrs[i], 0.8 + 0.4*s.Float64(), 1,
			0.9 + 0.2*s.Float64(), 1, 1e5 * (1 + s.Float64()), s.IntN(100_000), s.IntN(1000),
			0, 0, 0, spin1, 0, 0,
			spin2, i,
		})
	}
	table{"sngl_inspiral", columns, rows}.write(b)
}

func (s source) writeSegments(b *bytes.Buffer) {
	var definers, segments, summaries [][]any
	for i, ifo := range ifos {
		start := s.gps - 3600 - s.IntN(3600)
		definers = append(definers, []any{0, i, ifo, "datasegments", 1, "data analysed"})
		segments = append(segments, []any{0, i, start, 0, s.gps + 1, 0, i})
		summaries = append(summaries, []any{0, i, start, 0, s.gps + 1, 0, nil, i})
	}
	table{"segment_definer", []string{
		"process:process_id int_8s", "segment_def_id int_8s", "ifos lstring", "name lstring", "version int_4s", "comment lstring",
	}, definers}.write(b)
	table{"segment", []string{
		"process:process_id int_8s", "segment_id int_8s", "start_time int_4s", "start_time_ns int_4s",
		"end_time int_4s", "end_time_ns int_4s", "segment_definer:segment_def_id int_8s",
	}, segments}.write(b)
	table{"segment_summary", []string{
		"process:process_id int_8s", "segment_sum_id int_8s", "start_time int_4s", "start_time_ns int_4s",
		"end_time int_4s", "end_time_ns int_4s", "comment lstring", "segment_definer:segment_def_id int_8s",
	}, summaries}.write(b)
}
