package gracedb_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gracedb-go/gracedb/internal/gracetest"
)

// JSON that is no root document is not kept: the next call asks again.
func TestRootDocumentOfSomethingElse(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	s.Script(gracetest.Fault{On: "root", Status: http.StatusOK, Body: `{"error": "upgrading"}`})
	if _, err := s.Client.Reserve(t.Context(), event()); err == nil || !strings.Contains(err.Error(), "no root document of GraceDB") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Client.Reserve(t.Context(), event()); err != nil {
		t.Errorf("after the server is back: %v", err)
	}
}

// A list that the server does not give refuses nothing.
func TestRootDocumentWithoutLists(t *testing.T) {
	s := newService(t, gracetest.Config{EditRoot: func(doc map[string]any) {
		for _, list := range []string{"groups", "pipelines", "searches", "labels"} {
			delete(doc, list)
		}
	}}, nil)
	e := event()
	e.Search, e.Labels = "AllSky", []string{"INJ"}
	if _, err := s.Client.Reserve(t.Context(), e); err != nil {
		t.Error(err)
	}
}
