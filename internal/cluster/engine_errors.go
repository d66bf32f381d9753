package cluster

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// This file is what an error of kgo's, or a broker's code, stands for.

// EngineKinds returns what an error of the engine stands for; nothing if that is
// not known.
func EngineKinds(err error) []error {
	var is []error
	switch {
	case errors.Is(err, errs.Authentication), sasl.IsRefusal(err):
		is = append(is, errs.Authentication)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID),
		errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.InvalidTopicException):
		is = append(is, errs.Topic)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		is = append(is, errs.TooLarge)
	case errors.Is(err, kgo.ErrClientClosed):
		is = append(is, errs.Closed)
	case IsConnectionError(err):
		is = append(is, errs.Connection)
	}
	return is
}

// IsConnectionError reports whether err says that a connection failed, or could not be made.
func IsConnectionError(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok && !errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	return isDialError(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func isDialError(err error) bool {
	_, ok := errors.AsType[*dialError](err)
	return ok
}

// IsUnconnected reports whether err is of a request for which there was no connection: one
// could not be made, or the login on it has failed.
func IsUnconnected(err error) bool {
	return isDialError(err) || errors.Is(err, errs.Authentication) || sasl.IsRefusal(err)
}
