package gracedb

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/wire"
)

// An Upload is an event as it travels over Kafka.
type Upload struct {
	Server         string // GraceDB service URL, such as "https://gracedb-test.ligo.org/api/"; empty if the message does not say
	GraceID        string // reserved graceid: letters and digits, safe in a file name; empty if PublishOnly
	Submitter      string // from the reservation; empty if PublishOnly
	Pipeline       string // in the case that the submitter wrote it, such as "MLy"
	PublishOnly    bool   // not to be uploaded to GraceDB (gracedb_upload is false)
	SkipSupervisor bool   // GraceDB's supervisor is asked to ignore the message
	Labels         []string
	Filename       string // as sent: it may hold directories, and is not to be trusted as a path
	Data           []byte // contents of the file
	ContentID      string // UUID of the first 16 bytes of Data's SHA-256, which has been compared; empty if it was not sent
	// Time is when the producer made the message, to the microsecond; zero if it
	// does not say.
	Time time.Time
	// Group, Search, Offline and ReplayID are empty in messages of producers that
	// do not send them.
	Group, Search string
	Offline       bool
	ReplayID      string
	// Extra holds the members this package does not know, undecoded.
	Extra map[string]json.RawMessage
}

// Event returns what u carries as an Event, for whoever uploads it to GraceDB. The
// file name loses its directories. Labels and Data are u's own, not copies.
func (u Upload) Event() Event {
	return Event{
		Group:    u.Group,
		Pipeline: u.Pipeline,
		Search:   u.Search,
		Labels:   u.Labels,
		Offline:  u.Offline,
		ReplayID: u.ReplayID,
		Filename: wire.FileName(strings.ReplaceAll(u.Filename, `\`, "/")), // of Windows, too
		Data:     u.Data,
	}
}
