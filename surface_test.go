package gracedb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Nothing of the engine shines through: the types have the methods and fields that
// are documented.
func TestPublicSurface(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{&gracedb.Producer{}, "Check Close Flush Pending Ping Produce ProduceSync"},
		{&gracedb.Consumer{}, "Check Close Commit Lag Poll Seek Stream Subscribe"},
		{&gracedb.Client{}, "CreateEvent HTTPClient NewProducer PublishEvent Reserve ServiceInfo UploadReservedEvent WaitUploaded"},
	} {
		typ := reflect.TypeOf(tt.value)
		var got []string
		for m := range typ.Methods() {
			got = append(got, m.Name)
		}
		if want := strings.Fields(tt.want); !slices.Equal(got, want) {
			t.Errorf("%v has the methods %v, want %v", typ, got, want)
		}
		for _, f := range reflect.VisibleFields(typ.Elem()) {
			if f.IsExported() {
				t.Errorf("%v has the field %s", typ, f.Name)
			}
		}
	}
}

// testdata/api.txt is what go doc -all shows of the package. A change of it is a change of
// what users write and read: it is made on purpose, by renewing the file, or not at all.
func TestAPIIsFrozen(t *testing.T) {
	const file = "testdata/api.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Comments do not change the test's binary: this makes go test look at the sources
	// before it takes the result of an earlier run.
	if _, err := os.ReadDir("."); err != nil {
		t.Fatal(err)
	}
	doc := exec.CommandContext(t.Context(), "go", "doc", "-all", ".")
	doc.Stderr = os.Stderr
	got, err := doc.Output()
	if err != nil {
		t.Fatalf("%v: %v", doc, err)
	}
	// The first line has the import path, or only "." where go list has not seen all modules yet.
	_, wantDoc, _ := strings.Cut(string(want), "\n")
	_, gotDoc, _ := strings.Cut(string(got), "\n")
	if diff := cmp.Diff(wantDoc, gotDoc); diff != "" {
		t.Errorf("the public API or its documentation differs from %s (-want +got); if that is meant, renew the file: go doc -all . >%[1]s\n%s", file, diff)
	}
}

// No method of a zero value panics, hangs or claims success.
func TestZeroValues(t *testing.T) {
	var source gracedb.TokenSource
	zeros := []any{
		&gracedb.Producer{}, &gracedb.Consumer{}, &gracedb.Client{},
		(*gracedb.Producer)(nil), (*gracedb.Consumer)(nil), (*gracedb.Client)(nil),
		&gracedb.ReservedError{}, &gracedb.StatusError{},
		&gracedb.Message{}, &gracedb.Header{}, &gracedb.Event{}, &gracedb.Upload{},
		&gracedb.Cluster{}, &gracedb.ProducerConfig{}, &gracedb.ConsumerConfig{}, &gracedb.ClientConfig{},
		&gracedb.Reservation{}, &gracedb.PublishOptions{}, &gracedb.Provenance{}, &gracedb.Receipt{}, &gracedb.Timing{},
		&gracedb.ServiceInfo{}, &gracedb.TokenQuery{}, &source,
		&gracedb.PartitionLag{}, &gracedb.DiagnoseConfig{}, &gracedb.Finding{}, new(gracedb.Severity),
	}
	tried := make(map[string]bool)
	for _, zero := range zeros {
		v := reflect.ValueOf(zero)
		name := v.Type().Elem().Name()
		tried[name] = true
		for i := range v.NumMethod() {
			name := name + "." + v.Type().Method(i).Name
			if v.IsNil() {
				name = "nil " + name
			}
			wantError := (name != "ReservedError.Unwrap")
			t.Run(name, func(t *testing.T) { callZero(t, v.Method(i), wantError) })
		}
	}
	for _, name := range publicTypes(t) {
		if !tried[name] {
			t.Errorf("the zero value of %s is not tried", name)
		}
	}
}

// callZero calls a method with zero arguments. An error that it returns must be one.
func callZero(t *testing.T, method reflect.Value, wantError bool) {
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("panics: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var args []reflect.Value
	for in := range method.Type().Ins() {
		switch {
		case in == reflect.TypeFor[context.Context]():
			args = append(args, reflect.ValueOf(ctx))
		case !method.Type().IsVariadic():
			args = append(args, reflect.Zero(in))
		}
	}
	var err error
	returned := false
	for _, out := range method.Call(args) {
		switch out := out.Interface().(type) {
		case iter.Seq2[gracedb.Message, error]:
			for _, e := range out {
				returned, err = true, e
			}
		case error:
			err = out
		}
		returned = returned || out.Type() == reflect.TypeFor[error]()
	}
	if ctx.Err() != nil {
		t.Error("hangs")
	}
	if returned && wantError {
		wantErr(t, err, nil, nil)
	}
}

// publicTypes returns the names of all exported types.
func publicTypes(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				names = append(names, spec.Name.Name)
			}
			return true
		})
	}
	return names
}

// A Producer that no constructor made is refused where another type takes one.
func TestPublishEventWithZeroProducer(t *testing.T) {
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: "https://gracedb-test.invalid/api/"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.PublishEvent(t.Context(), &gracedb.Producer{}, gracedb.Event{}, gracedb.PublishOptions{HTTPFallback: true})
	wantErr(t, err, kinds(gracedb.ErrConfig), nil, "NewProducer")
}

// What a source panics with ends neither the program nor a call: it is an error like any
// other of the source, on both halves.
func TestTokenSourcePanics(t *testing.T) {
	text := "no luck with eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl\x1b[2J\n"
	sources := map[string]gracedb.TokenSource{
		"panics":   func(context.Context) (string, error) { panic(text) },
		"reloaded": gracedb.ReloadToken(func(context.Context) (string, error) { panic(errors.New(text)) }, 0),
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				cluster := clusterFor(t, c, "me")
				cluster.Token = source
				is := kinds(gracedb.ErrToken)
				_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster})
				wantErr(t, err, is, nil, "panicked: no luck with [token removed]")
				_, err = gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster})
				wantErr(t, err, is, nil, "panicked: no luck with [token removed]")

				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, _, err = gracedb.OAuthBearer(source).Authenticate(ctx, "kafka.test")
				wantErr(t, err, is, nil, "panicked: no luck with [token removed]")

				client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: "https://gracedb-test.invalid/api/", Token: source})
				if err != nil {
					t.Fatal(err)
				}
				_, err = client.ServiceInfo(ctx)
				wantErr(t, err, is, nil, "panicked: no luck with [token removed]")
			})
		})
	}
}

// No source at all is an error, too.
func TestNilTokenSource(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, _ *kafkatest.Cluster) {
		for _, source := range []gracedb.TokenSource{nil, gracedb.ReloadToken(nil, 0)} {
			_, _, err := gracedb.OAuthBearer(source).Authenticate(t.Context(), "kafka.test")
			wantErr(t, err, kinds(gracedb.ErrToken), nil, "the token source is nil")
		}
	})
}

// Flush and Close would wait for the done that called them.
func TestFlushAndCloseInDone(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "me"), Topic: "test"})
		type result struct {
			flush, close error
			took         time.Duration
		}
		got, outside := make(chan result, 1), make(chan error, 1)
		err := p.Produce(t.Context(), gracedb.Message{Value: []byte("a")}, func(gracedb.Message, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			start := time.Now()
			r := result{flush: p.Flush(ctx), close: deeply(100, p.Close)}
			r.took = time.Since(start)
			got <- r
			go func() { outside <- p.Flush(t.Context()) }() // what the error says to do
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		r := <-got
		wantErr(t, r.flush, kinds(gracedb.ErrProducer), kinds(gracedb.ErrOutcomeUnknown), "Flush", "done")
		wantErr(t, r.close, kinds(gracedb.ErrProducer), kinds(gracedb.ErrOutcomeUnknown), "Close", "done")
		if r.took != 0 {
			t.Errorf("took %v", r.took)
		}
		if err := <-outside; err != nil {
			t.Error(err)
		}
		send(t, p, "b") // it is not closed
	})
}

// deeply calls f with n more frames on the stack.
func deeply(n int, f func() error) error {
	if n == 0 {
		return f()
	}
	err := deeply(n-1, f)
	return err
}

// A done that calls Close while the Producer is being closed keeps nobody waiting.
func TestCloseInDoneWhileClosing(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "me"), Topic: "test"})
		closing, got := make(chan struct{}), make(chan error, 1)
		err := p.Produce(t.Context(), gracedb.Message{Value: []byte("a")}, func(gracedb.Message, error) {
			<-closing
			time.Sleep(time.Second)
			got <- p.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		close(closing)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
		wantErr(t, <-got, kinds(gracedb.ErrProducer), nil, "Close", "done")
	})
}

// Each exported field says what it is, in its unit.
func TestFieldsAreDocumented(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			typ, ok := n.(*ast.TypeSpec)
			if !ok || !typ.Name.IsExported() {
				return true
			}
			fields, ok := typ.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range fields.Fields.List {
				for _, field := range f.Names {
					if seen++; field.IsExported() && f.Doc == nil && f.Comment == nil {
						t.Errorf("%s.%s is not documented", typ.Name, field)
					}
				}
			}
			return true
		})
	}
	if seen < 100 {
		t.Errorf("only %d fields were looked at", seen)
	}
}

// Messages and Receipts print as one line of bounded length, without what they carry.
func TestPrintedAsOneLine(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 5e6, time.UTC)
	message := gracedb.Message{
		Topic: "gracedb.gstlal", Partition: 1, Offset: 7, Key: []byte("G1"), Value: []byte("the value"),
		Headers: []gracedb.Header{{Key: "header", Value: []byte("of a header")}}, Time: at,
	}
	hostile := gracedb.Message{Topic: "a\nb\x1b[2J", Key: bytes.Repeat([]byte("\n\x00\u202e"), 1000), Value: make([]byte, 10)}
	for _, row := range []struct {
		value any
		want  string
	}{
		{message, `gracedb.gstlal/1@7 key "G1" 9 bytes 1 headers 2026-11-30T12:00:00.005Z`},
		{&message, `gracedb.gstlal/1@7 key "G1" 9 bytes 1 headers 2026-11-30T12:00:00.005Z`},
		{gracedb.Message{}, "(no topic)/0@0"},
		{gracedb.Receipt{}, "no graceid"},
		{
			gracedb.Receipt{GraceID: "G1", Message: message, Timing: gracedb.Timing{Reserve: 30 * time.Millisecond, Publish: 1234567}},
			`G1 over Kafka: gracedb.gstlal/1@7 key "G1" 9 bytes 1 headers 2026-11-30T12:00:00.005Z, reserve 30ms, publish 1.23ms`,
		},
		{
			gracedb.Receipt{GraceID: "G1", Fallback: errors.New("no broker"), Warnings: []string{"an\nodd label"}},
			`G1 over HTTP because: no broker; GraceDB warns: "an odd label"`,
		},
		{hostile, ""},
	} {
		got := fmt.Sprintf("%v", row.value)
		if row.want != "" && got != row.want {
			t.Errorf("printed as\n%s, want\n%s", got, row.want)
		}
		if len(got) > 500 || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("printed as %q", got)
		}
	}
}
