package gracetest

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/gracedb-go/gracedb"
)

// Supervise does what GraceDB's supervisor does: it uploads the events that come
// by Kafka to their graceids, over HTTP, but for those that ask to be left alone.
// It returns when messages end, with the errors of the uploads that failed; a
// stream that ended because ctx did is no error.
func (s *Server) Supervise(ctx context.Context, messages iter.Seq2[gracedb.Message, error]) error {
	httpClient := s.HTTPClient()
	defer httpClient.CloseIdleConnections()
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: s.url, HTTP: httpClient, Token: gracedb.StaticToken(s.supervisor),
	})
	if err != nil {
		return fmt.Errorf("gracetest: %w", err)
	}
	var failed []error
	for m, err := range messages {
		if err == nil {
			err = s.superviseOne(ctx, client, m)
		}
		if err != nil && ctx.Err() == nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (s *Server) superviseOne(ctx context.Context, client *gracedb.Client, m gracedb.Message) error {
	u, err := m.Upload()
	if errors.Is(err, gracedb.ErrNotUpload) {
		return nil // a ping
	}
	if err != nil {
		return err
	}
	if u.PublishOnly || u.SkipSupervisor {
		return nil
	}
	e := u.Event()
	// The Python client's messages do not say what the reservation does.
	for _, r := range s.Reservations() {
		if r.GraceID == u.GraceID {
			e.Group, e.Search = r.Group, r.Search
		}
	}
	_, err = client.UploadReservedEvent(ctx, u.GraceID, e, gracedb.Provenance{KafkaServer: "gracetest", KafkaTopic: m.Topic})
	if status, ok := errors.AsType[*gracedb.StatusError](err); ok && status.StatusCode == s.cfg.Conflict {
		return nil // somebody was faster
	}
	return err
}
