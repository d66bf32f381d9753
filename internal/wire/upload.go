package wire

import (
	"encoding/json"
	"time"
)

// An Upload is the Upload of package gracedb, which documents it.
type Upload struct {
	Server         string
	GraceID        string
	Submitter      string
	Pipeline       string
	PublishOnly    bool
	SkipSupervisor bool
	Labels         []string
	Filename       string
	Data           []byte
	ContentID      string
	Time           time.Time
	Group, Search  string
	Offline        bool
	ReplayID       string
	Extra          map[string]json.RawMessage
}
