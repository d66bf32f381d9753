package gracedbapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// WaitUploaded waits until GraceDB has the data of a reserved event, as long as ctx allows.
func (c *Client) WaitUploaded(ctx context.Context, graceID string) error {
	if err := CheckGraceID(graceID); err != nil {
		return err
	}
	info, err := c.ServiceInfo(ctx)
	if err != nil {
		return err
	}
	to, err := c.eventURL(info, graceID)
	if err != nil {
		return err
	}
	const longest = 2 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, longest) {
		a, err := c.do(ctx, exchange{method: http.MethodGet, url: to, repeatable: true})
		done, said := false, "GraceDB does not know it"
		switch {
		case a.status == http.StatusNotFound:
			err = nil
		case err == nil:
			done, said, err = a.uploaded(graceID)
		}
		if done || err != nil {
			return err
		}
		if err := clock.Sleep(ctx, pause); err != nil {
			return errs.New([]error{err}, "waiting for the data of %s: %s: %s", graceID, said, errs.Reason(err))
		}
	}
}

// uploaded reads the answer to a request for an event: done if the server has its data,
// else what it said instead.
func (a *answer) uploaded(graceID string) (done bool, said string, err error) {
	fields, err := decodeObject(a.body)
	if err != nil {
		return false, "", a.unexpected("is not a JSON object: %q", excerpt(a.body))
	}
	var id string
	if json.Unmarshal(fields["graceid"], &id) != nil || id != graceID {
		return false, "", a.unexpected("is not about %s: %q", graceID, excerpt(a.body))
	}
	raw, ok := fields["processing_status"]
	if !ok || string(raw) == "null" {
		return true, "", nil
	}
	var status string
	if json.Unmarshal(raw, &status) == nil && status == "uploaded" {
		return true, "", nil
	}
	return false, "its processing_status is " + excerpt(raw), nil
}

// eventURL returns where an event is.
func (c *Client) eventURL(info *Info, graceID string) (*url.URL, error) {
	to, err := c.templateURL(info, "event-detail-template", graceID)
	if !errors.Is(err, errors.ErrUnsupported) {
		return to, err
	}
	events, err := c.linkURL(info, "events")
	if err != nil {
		return nil, err
	}
	return events.JoinPath(graceID), nil
}
