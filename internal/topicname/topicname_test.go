package topicname

import (
	"errors"
	"strings"
	"testing"

	"github.com/gracedb-go/gracedb/internal/errs"
)

func TestDeriveInstanceNameError(t *testing.T) {
	tests := []struct{ name, url, want string }{
		{"no scheme", "gracedb.ligo.org/api/", `gracedb: service URL "gracedb.ligo.org/api/": no host name in it; it should look like https://gracedb.ligo.org/api/`},
		{"password", "https://alice:secret@[::1/api/", `gracedb: service URL "…@[::1/api/": no host name in it; it should look like https://gracedb.ligo.org/api/`},
		{"password with @", "https://alice:sec@ret@[::1/", `gracedb: service URL "…@[::1/": no host name in it; it should look like https://gracedb.ligo.org/api/`},
		{"password in an instance that is none", "https://alice:secret@[::1]/", `gracedb: service URL "…@[::1]/": its host does not name a GraceDB instance: ':' is not allowed in topic name "::1": only letters a-z, digits, '.', '_' and '-'`},
		{"control characters", "https://\x1b[31m\n.org", `gracedb: service URL "https://[31m .org": no host name in it; it should look like https://gracedb.ligo.org/api/`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Instance(tt.url)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if !errors.Is(err, errs.Config) {
				t.Error("not an ErrConfig")
			}
		})
	}
}

func TestParseTopicNameError(t *testing.T) {
	_, _, err := Split("gstlal")
	if !errors.Is(err, errs.Config) || !strings.Contains(err.Error(), `topic "gstlal" has no dot`) {
		t.Errorf("got %v", err)
	}
}

func TestTopicName(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"gstlal", "gracedb-dev.gstlal"},
		{"gracedb-test.gstlal", "gracedb-test.gstlal"},
		{"", "gracedb-dev."},
	} {
		if got := Full("gracedb-dev", tt.name); got != tt.want {
			t.Errorf("Full(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRouteEventLongS(t *testing.T) {
	if got := Route("teſt", "gstlal"); got != "gstlal" {
		t.Errorf("group teſt goes to %q", got)
	}
}

func TestCheckTopicName(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"gracedb-dev.gstlal", ""},
		{"__consumer_offsets", ""},
		{strings.Repeat("x", 249), ""},
		{strings.Repeat("x", 250), "topic name of 250 bytes: at most 249 are allowed"},
		{"", "empty topic name"},
		{".", `topic name "." is not allowed`},
		{"..", `topic name ".." is not allowed`},
		{"...", ""},
		{"a b", `' ' is not allowed in topic name "a b": only letters a-z, digits, '.', '_' and '-'`},
		{"é", `'é' is not allowed in topic name "é": only letters a-z, digits, '.', '_' and '-'`},
		{"a\xff", `'�' is not allowed in topic name "a": only letters a-z, digits, '.', '_' and '-'`},
		{"a\n", `'\n' is not allowed in topic name "a": only letters a-z, digits, '.', '_' and '-'`},
	} {
		got := ""
		if err := Check(tt.name); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Check(%q) = %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzDeriveInstanceName(f *testing.F) {
	for _, url := range []string{"https://gracedb-dev.ligo.org/api/", "https://u:p@[::1%25eth0]:1/", "//A..b", "%zz", " \n", "https://a@b@c"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		instance, err := Instance(url)
		if err != nil {
			if instance != "" || !errors.Is(err, errs.Config) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("Instance(%q) = %q, %v", url, instance, err)
			}
			return
		}
		if Check(instance) != nil || strings.Contains(instance, ".") || instance != strings.ToLower(instance) {
			t.Errorf("Instance(%q) = %q", url, instance)
		}
	})
}

func FuzzParseTopicName(f *testing.F) {
	for _, topic := range []string{"gracedb-dev.gstlal", "a..b", "", ".", "no dot", "é.\xff"} {
		f.Add(topic)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		instance, pipeline, err := Split(topic)
		if (err == nil) != strings.Contains(topic, ".") {
			t.Fatalf("Split(%q): %v", topic, err)
		}
		if err == nil && (Join(instance, pipeline) != topic || strings.Contains(instance, ".")) {
			t.Errorf("Split(%q) = %q, %q", topic, instance, pipeline)
		}
		if err := Check(topic); err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("Check(%q): %v", topic, err)
		}
		if name := Full("gracedb", topic); !strings.Contains(name, ".") {
			t.Errorf("Full(%q) = %q", topic, name)
		}
	})
}
