package gracedb

import (
	"context"
	"errors"
)

// bearer asks for a token other than refused.
func (c *Client) bearer(ctx context.Context, refused string) (string, error) {
	token, err := c.token(withTokenHints(ctx, refused, c.log))
	switch {
	case err != nil && ctx.Err() != nil:
		return "", fail([]error{ctx.Err(), err}, "%s", reason(err))
	case err != nil && errors.Is(err, ErrToken):
		return "", err
	case err != nil:
		return "", fail([]error{ErrToken, err}, "no usable token: %s", reason(err))
	}
	if _, err := usableToken(token); err != nil {
		return "", err
	}
	return token, nil
}
