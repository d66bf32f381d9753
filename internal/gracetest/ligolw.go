package gracetest

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// readTables returns the rows of a LIGO_LW document's tables, by the names of the
// tables without what stands around them; a table without rows is not nil.
func readTables(data []byte) (map[string][]map[string]any, error) {
	data, err := inflate(data)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	tables := map[string][]map[string]any{}
	begun := false
	for depth := 0; ; {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && begun:
			return tables, nil
		case err != nil:
			return nil, err
		}
		switch e := token.(type) {
		case xml.EndElement:
			depth--
		case xml.StartElement:
			if depth == 0 && e.Name.Local != "LIGO_LW" {
				return nil, fmt.Errorf("invalid element %s for Document", e.Name.Local)
			}
			depth++
			begun = true
			if e.Name.Local != "Table" {
				continue
			}
			depth-- // it is read to its end
			var t table
			if err := d.DecodeElement(&t, &e); err != nil {
				return nil, err
			}
			rows, err := t.rows()
			if err != nil {
				return nil, err
			}
			tables[lastPart(strings.TrimSuffix(t.Name, ":table"))] = rows
		}
	}
}

// A table is a LIGO_LW Table.
type table struct {
	Name    string `xml:"Name,attr"`
	Columns []struct {
		Name string `xml:"Name,attr"`
		Type string `xml:"Type,attr"`
	} `xml:"Column"`
	Stream string `xml:"Stream"`
}

// lastPart is what is behind the last colon: the rest says whose a column is.
func lastPart(name string) string { return name[strings.LastIndexByte(name, ':')+1:] }

func (t table) rows() ([]map[string]any, error) {
	rows := []map[string]any{}
	cells := splitCells(t.Stream)
	if len(t.Columns) == 0 || len(cells) == 1 && cells[0] == "" {
		return rows, nil
	}
	if len(cells)%len(t.Columns) != 0 {
		return nil, fmt.Errorf("%s: %d cells in %d columns", t.Name, len(cells), len(t.Columns))
	}
	for len(cells) > 0 {
		row := map[string]any{}
		for i, c := range t.Columns {
			value, err := cellOf(c.Type, cells[i])
			if err != nil {
				return nil, err
			}
			row[lastPart(c.Name)] = value
		}
		rows, cells = append(rows, row), cells[len(t.Columns):]
	}
	return rows, nil
}

// splitCells splits at the commas that are not in quotes.
func splitCells(stream string) (cells []string) {
	begin, quoted := 0, false
	for i := 0; i < len(stream); i++ {
		switch c := stream[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			cells, begin = append(cells, strings.TrimSpace(stream[begin:i])), i+1
		}
	}
	return append(cells, strings.TrimSpace(stream[begin:]))
}

func cellOf(kind, cell string) (any, error) {
	switch {
	case cell == "":
		return nil, nil
	case strings.HasPrefix(kind, "real"):
		return strconv.ParseFloat(cell, 64)
	case strings.HasPrefix(kind, "int"):
		return strconv.ParseInt(cell, 10, 64)
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(strings.Trim(cell, `"`)), nil
}

// Readable is a small file that the server can read of gstlal, pycbc, spiir, MBTA and
// PyGRB.
const Readable = `<?xml version='1.0' encoding='utf-8'?>
<!DOCTYPE LIGO_LW SYSTEM "http://ldas-sw.ligo.caltech.edu/doc/ligolwAPI/html/ligolw_dtd.txt">
<LIGO_LW>
<Table Name="coinc_inspiral:table">
<Column Name="ifos" Type="lstring"/><Column Name="end_time" Type="int_4s"/><Column Name="end_time_ns" Type="int_4s"/>
<Column Name="mass" Type="real_8"/><Column Name="mchirp" Type="real_8"/><Column Name="snr" Type="real_8"/>
<Column Name="false_alarm_rate" Type="real_8"/><Column Name="combined_far" Type="real_8"/>
<Stream Name="coinc_inspiral:table" Type="Local" Delimiter=",">"H1,L1",1400000000,500000000,2.8,1.2,12,1e-10,1e-9</Stream></Table>
<Table Name="coinc_event:table">
<Column Name="nevents" Type="int_4u"/><Column Name="likelihood" Type="real_8"/>
<Stream Name="coinc_event:table" Type="Local" Delimiter=",">2,20.5</Stream></Table>
<Table Name="sngl_inspiral:table">
<Column Name="ifo" Type="lstring"/><Column Name="snr" Type="real_4"/>
<Stream Name="sngl_inspiral:table" Type="Local" Delimiter=",">"H1",9,"L1",8</Stream></Table>
</LIGO_LW>
`
