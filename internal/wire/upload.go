package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is all that says which members a message has.

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

// appendUpload appends to dst the message that carries u, all but the payload, and
// returns what comes before the payload and what comes after it.
func appendUpload(dst []byte, u Upload) (head, tail []byte) {
	dst = append(dst, `{"type":"upload","gracedb_server":`...)
	dst = appendJSONString(dst, u.Server)
	dst = append(dst, `,"graceid":`...)
	dst = appendJSONStringOrNull(dst, u.GraceID)
	dst = append(dst, `,"submitter":`...)
	dst = appendJSONStringOrNull(dst, u.Submitter)
	dst = append(dst, `,"pipeline":`...)
	dst = appendJSONString(dst, u.Pipeline)
	dst = append(dst, `,"gracedb_upload":`...)
	dst = strconv.AppendBool(dst, !u.PublishOnly)
	dst = append(dst, `,"skip_supervisor":`...)
	dst = strconv.AppendBool(dst, u.SkipSupervisor)
	dst = append(dst, `,"labels":`...)
	dst = appendLabels(dst, u.Labels)
	dst = append(dst, `,"eventFile":[`...)
	dst = appendJSONString(dst, FileName(u.Filename))
	dst = append(dst, `,"`...)
	payload := len(dst)
	dst = append(dst, `"],"_producer_timestamp":`...)
	dst = appendUnixTime(dst, u.Time)

	dst = append(dst, `,"content_id":`...)
	if u.ContentID != "" {
		dst = appendJSONString(dst, u.ContentID)
	} else {
		dst = append(appendContentID(append(dst, '"'), u.Data), '"')
	}
	dst = append(dst, `,"group":`...)
	dst = appendJSONString(dst, u.Group)
	if u.Search != "" {
		dst = append(dst, `,"search":`...)
		dst = appendJSONString(dst, u.Search)
	}
	if u.Offline {
		dst = append(dst, `,"offline":true`...)
	}
	if u.ReplayID != "" {
		dst = append(dst, `,"replay_id":`...)
		dst = appendJSONString(dst, u.ReplayID)
	}
	dst = append(dst, '}')
	return dst[:payload], dst[payload:]
}

// Decode decodes the value of a message.
func Decode(value []byte) (Upload, error) {
	var room [24]member
	ms, err := splitObject(room[:0], value)

	// Older producers say "new".
	kind := ms.unquoted("type", true, &err)
	if err == nil && string(kind) != "upload" && string(kind) != "new" {
		return Upload{}, fmt.Errorf("%w: its type is %q", errs.NotUpload, errs.Clean(string(kind)))
	}
	u := Upload{
		Server:         ms.text("gracedb_server", false, &err),
		GraceID:        ms.graceID("graceid", &err),
		Submitter:      ms.text("submitter", false, &err),
		Pipeline:       ms.text("pipeline", true, &err),
		PublishOnly:    ms.has("gracedb_upload") && !ms.bool("gracedb_upload", true, &err),
		SkipSupervisor: ms.bool("skip_supervisor", false, &err),
		Labels:         ms.texts("labels", &err),
		Time:           ms.unixTime("_producer_timestamp", &err),
		Group:          ms.text("group", false, &err),
		Search:         ms.text("search", false, &err),
		Offline:        ms.bool("offline", false, &err),
		ReplayID:       ms.text("replay_id", false, &err),
	}
	id := ms.unquoted("content_id", false, &err)
	u.ContentID = string(id)
	u.Filename, u.Data = ms.file("eventFile", id, &err)
	u.Extra = ms.rest(&err)

	if errors.Is(err, errNotJSON) {
		err = explainSyntax(value, err)
	}
	if err != nil {
		return Upload{}, err
	}
	return u, nil
}
