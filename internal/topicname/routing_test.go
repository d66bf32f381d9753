package topicname

import (
	"testing"

	"github.com/gracedb-go/gracedb/internal/vectors"
)

// routingDiffers are the pipelines that go to another topic than the peer's, each
// with the reason and where they go.
var routingDiffers = map[string]struct{ pipelineTopic, topic, reason string }{
	"İstanbul": {"istanbul", "gracedb-test.istanbul", "the peer lowers İ to two letters; no topic can have such a name"},
	"ΑΣ":       {"ασ", "gracedb-test.ασ", "the peer knows the final sigma; no topic can have such a name"},
	"A.B":      {"a.b", "a.b", "a name with a dot is a full topic name; no pipeline has one"},
}

func TestVectorsRouting(t *testing.T) {
	type vector struct {
		Group, Pipeline, Instance, Output string
		PipelineTopic                     string `json:"pipeline_topic"`
	}
	seen := 0
	lines, err := vectors.Lines[vector]("routing.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range lines {
		if differs, ok := routingDiffers[v.Pipeline]; ok {
			v.PipelineTopic, v.Output = differs.pipelineTopic, differs.topic
			seen++
		}
		got := Route(v.Group, v.Pipeline)
		if got != v.PipelineTopic {
			t.Errorf("Route(%q, %q) = %q, want %q", v.Group, v.Pipeline, got, v.PipelineTopic)
		}
		if full := Full(v.Instance, got); full != v.Output {
			t.Errorf("Full(%q, %q) = %q, want %q", v.Instance, got, full, v.Output)
		}
	}
	if seen != len(routingDiffers) {
		t.Errorf("%d of the %d differences met", seen, len(routingDiffers))
	}
}
