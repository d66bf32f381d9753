package topicname_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/vectors"
)

// instanceDiffers are the service URLs for which DeriveInstanceName is an error
// where the peer returns a name, each with the reason.
var instanceDiffers = map[string]string{
	"https://[::1]/api/":                    "a topic name may not hold ':'",
	"https://[::1]:8443/api/":               "a topic name may not hold ':'",
	"https://[fe80::1%25eth0]/api/":         "a topic name may not hold ':' or '%'",
	"https://.ligo.org/api/":                "an empty instance is a mistake",
	"https://gräcedb.example/api/":          "a topic name is ASCII",
	"https://グレース.jp/api/":                  "a topic name is ASCII",
	"https://gracedb-dev.ligo.org:abc/api/": "no request to such a port can work",
	"https://grace db.ligo.org/api/":        "a topic name may not hold a space",
	"https:// gracedb-dev.ligo.org/api/":    "a topic name may not hold a space",
	"https://%67racedb.ligo.org/api/":       "a host is not percent-encoded",
	"https://gracedb.ligo.org\n/api/":       "a newline inside a URL is a mistake",
}

func TestVectorsTopics(t *testing.T) {
	type vector struct {
		Fn     string
		Input  json.RawMessage
		Output json.RawMessage
		Error  string
	}
	decode := func(raw json.RawMessage, v any) {
		t.Helper()
		if err := json.Unmarshal(raw, v); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	lines, err := vectors.Lines[vector]("topics.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range lines {
		t.Run(v.Fn+string(v.Input), func(t *testing.T) {
			switch v.Fn {
			case "derive_instance_name":
				var input, want string
				decode(v.Input, &input)
				if v.Error == "" {
					decode(v.Output, &want)
				}
				if instanceDiffers[input] != "" {
					want = ""
					seen++
				}
				got, err := gracedb.DeriveInstanceName(input)
				if got != want || (err == nil) != (want != "") {
					t.Errorf("DeriveInstanceName(%q) = %q, %v; want %q", input, got, err, want)
				}
				if err != nil && !errors.Is(err, errs.Config) {
					t.Errorf("%v is not an ErrConfig", err)
				}
			case "make_topic_name":
				var input [2]string
				var want string
				decode(v.Input, &input)
				decode(v.Output, &want)
				if got := gracedb.MakeTopicName(input[0], input[1]); got != want {
					t.Errorf("MakeTopicName(%q, %q) = %q, want %q", input[0], input[1], got, want)
				}
			case "parse_topic_name":
				var input string
				var want [2]string
				decode(v.Input, &input)
				if v.Error == "" {
					decode(v.Output, &want)
				}
				instance, pipeline, err := gracedb.ParseTopicName(input)
				if diff := cmp.Diff(want, [2]string{instance, pipeline}); diff != "" {
					t.Errorf("ParseTopicName(%q): %s", input, diff)
				}
				if (err != nil) != (v.Error != "") {
					t.Errorf("ParseTopicName(%q): %v, want error %q", input, err, v.Error)
				}
			default:
				t.Errorf("unknown function %q", v.Fn)
			}
		})
	}
	if seen != len(instanceDiffers) {
		t.Errorf("%d of the %d differences met", seen, len(instanceDiffers))
	}
}
