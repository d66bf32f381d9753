package main

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A chart is drawn into <Name>.svg: lines, or groups of bars if there are Groups.
type chart struct {
	Name   string
	Title  string
	X, Y   string // what the axes show, with the unit
	LogX   bool
	LogY   bool     // of lines; bars begin at zero
	Groups []string // what the bars of each series stand for, from left to right
	Series []series
	Drawn  bool // by another program: it is only linked to
}

// A series is one line, or one bar in every group.
type series struct {
	Name string
	X, Y []float64 // X is not used for bars
}

const (
	chartWidth  = 18 * vg.Centimeter
	chartHeight = 10 * vg.Centimeter
)

// draw writes the chart into dir.
func (c *chart) draw(dir string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	p.BackgroundColor = color.White // a reader's dark page would hide black text
	p.Title.Padding, p.Legend.Padding = vg.Points(6), vg.Points(3)
	p.Legend.Top, p.Legend.Left = true, true
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{220}, color.Gray{220}
	p.Add(grid)
	var err error
	if len(c.Groups) > 0 {
		grid.Vertical.Color = nil
		err = c.bars(p)
	} else {
		err = c.lines(p)
	}
	if err == nil {
		err = p.Save(chartWidth, chartHeight, filepath.Join(dir, c.Name+".svg"))
	}
	if err != nil {
		return fmt.Errorf("chart %s: %w", c.Name, err)
	}
	return nil
}

func (c *chart) lines(p *plot.Plot) error {
	if c.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	if c.LogY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	for i, s := range c.Series {
		points := make(plotter.XYs, len(s.X))
		for j := range s.X {
			points[j].X, points[j].Y = s.X[j], s.Y[j]
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		marks.Color, marks.Shape = plotutil.Color(i), draw.CircleGlyph{}
		p.Add(line, marks)
		p.Legend.Add(s.Name, line, marks)
	}
	return nil
}

func (c *chart) bars(p *plot.Plot) error {
	width := min(chartWidth*0.7/vg.Length(len(c.Groups)*len(c.Series)), 2*vg.Centimeter)
	for i, s := range c.Series {
		bar, err := plotter.NewBarChart(plotter.Values(s.Y), width)
		if err != nil {
			return err
		}
		bar.Color, bar.LineStyle.Width = plotutil.Color(i), 0
		bar.Offset = width * (vg.Length(i) - vg.Length(len(c.Series)-1)/2)
		p.Add(bar)
		p.Legend.Add(s.Name, bar)
	}
	p.NominalX(c.Groups...)
	p.X.Min, p.X.Max = -0.5, float64(len(c.Groups))-0.5
	p.Y.Min, p.Y.Max = 0, 1.25*p.Y.Max // room for the legend
	return nil
}
