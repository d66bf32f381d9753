package gracedb_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gracedb-go/gracedb"
)

// Nothing of the engine shines through: the types have the methods and fields that
// are documented.
func TestPublicSurface(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{&gracedb.Producer{}, "Check Close Flush Pending Ping Produce ProduceSync"},
		{&gracedb.Consumer{}, "Check Close Commit Poll Stream Subscribe"},
		{&gracedb.Client{}, "CreateEvent NewProducer PublishEvent Reserve ServiceInfo UploadReservedEvent WaitUploaded"},
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
