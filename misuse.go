package gracedb

import "github.com/gracedb-go/gracedb/internal/errs"

// This file makes errors of mistakes that would end the program, or wait for ever.

// made returns an error for a Consumer that no constructor made, or nil.
func (c *Consumer) made() error {
	if c == nil || c.core == nil {
		return errs.New([]error{errs.Config, errs.Consumer}, "kafka: this Consumer was not made by NewConsumer")
	}
	return nil
}

// made returns an error for a Client that no constructor made, or nil.
func (c *Client) made() error {
	if c == nil || c.api == nil {
		return errs.New([]error{errs.Config}, "this Client was not made by NewClient")
	}
	return nil
}
