package samples

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A series is a LIGO_LW array of a time or frequency and the values there, as lal
// writes it, with a parameter that says what it belongs to.
type series struct {
	kind   string // such as "REAL8FrequencySeries"
	name   string
	unit   string
	axis   string // "Time" or "Frequency"
	step   float64
	values string // such as "Real,Imaginary"
	param  string // the whole element
	indent string
}

// write writes a series whose rows are what at appends, as many as make it size
// bytes long.
func (v series) write(b *bytes.Buffer, epoch string, size int, at func(row []byte, x float64) []byte) {
	var rows []byte
	count := 0
	overhead := len(v.head(epoch, 10_000)) + len(v.tail())
	for count < 2 || overhead+len(rows) < size {
		x := float64(count) * v.step
		rows = append(rows, v.indent+"\t\t\t"...)
		rows = strconv.AppendFloat(rows, x, 'g', -1, 64)
		rows = at(append(rows, ' '), x)
		rows = append(rows, " \n"...)
		count++
	}
	b.WriteString(v.head(epoch, count))
	b.Write(rows)
	b.WriteString(v.tail())
}

func (v series) head(epoch string, rows int) string {
	unit := map[string]string{"Time": "s", "Frequency": "s^-1"}[v.axis]
	columns := strings.Count(v.values, ",") + 2
	lines := []string{
		fmt.Sprintf(`<LIGO_LW Name="%s">`, v.kind),
		fmt.Sprintf(`	<Time Type="GPS" Name="epoch">%s</Time>`, epoch),
		`	<Param Name="f0:param" Type="real_8" Unit="s^-1">0</Param>`,
		fmt.Sprintf(`	<Array Type="real_8" Name="%s:array" Unit="%s">`, v.name, v.unit),
		fmt.Sprintf(`		<Dim Name="%s" Unit="%s" Start="0" Scale="%s">%d</Dim>`, v.axis, unit, strconv.FormatFloat(v.step, 'g', -1, 64), rows),
		fmt.Sprintf(`		<Dim Name="%s,%s">%d</Dim>`, v.axis, v.values, columns),
		`		<Stream Type="Local" Delimiter=" ">`,
	}
	return v.indent + strings.Join(lines, "\n"+v.indent) + "\n"
}

func (v series) tail() string {
	lines := []string{"\t\t</Stream>", "\t</Array>", "\t" + v.param, "</LIGO_LW>"}
	return v.indent + strings.Join(lines, "\n"+v.indent) + "\n"
}

// writeSNR writes the SNR of one detector: noise, and a peak in the middle.
func (s source) writeSNR(b *bytes.Buffer, i, size int) {
	v := series{
		kind: "COMPLEX8TimeSeries", name: "snr", axis: "Time", step: 1.0 / 2048, values: "Real,Imaginary",
		param: fmt.Sprintf(`<Param Name="event_id:param" Type="int_8s">%d</Param>`, i), indent: "\t",
	}
	middle := float64(size) / 65 / 2 * v.step // a row has about 65 bytes
	phase := 2 * math.Pi * s.Float64()
	v.write(b, fmt.Sprintf("%d.%09d", s.gps-1, s.nanos), size, func(row []byte, t float64) []byte {
		peak := s.snrs[i] * math.Exp(-math.Abs(t-middle)/0.004)
		sin, cos := math.Sincos(phase + 2*math.Pi*150*(t-middle))
		// float32, as the name of the series says, written with all the digits it has as a float64
		row = strconv.AppendFloat(row, float64(float32(peak*cos+s.NormFloat64())), 'g', -1, 64)
		row = append(row, ' ')
		return strconv.AppendFloat(row, float64(float32(peak*sin+s.NormFloat64())), 'g', -1, 64)
	})
}

// writePSD writes the noise spectrum of one detector: seismic, thermal and shot
// noise, and the scatter of an estimate.
func (s source) writePSD(b *bytes.Buffer, i, size int) {
	v := series{
		kind: "REAL8FrequencySeries", name: "PSD", unit: "s strain^2", axis: "Frequency", step: 0.25, values: "Real",
		param: fmt.Sprintf(`<Param Name="instrument:param" Type="lstring">%s</Param>`, ifos[i]), indent: "\t\t",
	}
	v.write(b, fmt.Sprintf("%d.%09d", s.gps-4, 0), size, func(row []byte, f float64) []byte {
		if f < 10 {
			return append(row, '0')
		}
		power := math.Pow(f/22, -14) + 0.6*math.Pow(f/150, -4) + 1 + math.Pow(f/300, 2)
		return strconv.AppendFloat(row, 1e-47*power*math.Exp(0.1*s.NormFloat64()), 'g', -1, 64)
	})
}
