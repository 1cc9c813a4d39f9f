package jobwire

// What a caller brings along: the token and the name that it calls by, as the metadata of each call. No token is in a text that is
// shown or logged.

import (
	"context"
	"errors"
	"maps"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TokenSource returns the token that is valid now. It is asked before each call, so it should answer at once.
type TokenSource func(ctx context.Context) (string, error)

// bearer makes the metadata of each call, for gRPC.
type bearer struct {
	token TokenSource
	fixed map[string]string
}

// bearerOf refuses a token that can be none, here rather than at the first call.
func bearerOf(token string, source TokenSource, actor string) (*bearer, error) {
	b := &bearer{token: source, fixed: map[string]string{}}
	if token != "" {
		if source != nil {
			return nil, errors.New("give Token or TokenSource, not both")
		}
		if err := checkToken(token); err != nil {
			return nil, err
		}
		b.fixed["authorization"] = "Bearer " + token
	}
	if actor != "" {
		// Metadata is ASCII.
		b.fixed["x-jobwire-actor"] = strings.Map(func(letter rune) rune {
			if letter < ' ' || letter > '~' {
				return '?'
			}
			return letter
		}, actor)
	}
	return b, nil
}

func checkToken(token string) error {
	unfit := func(letter rune) bool { return letter <= ' ' || letter > '~' }
	if token == "" || strings.ContainsFunc(token, unfit) {
		return errors.New("a token must be a word of plain ASCII, without blanks or ends of lines")
	}
	return nil
}

// GetRequestMetadata is asked by gRPC before each call; without a token it ends with UNAUTHENTICATED.
func (b *bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if b.token == nil {
		return b.fixed, nil
	}
	token, err := b.token(ctx)
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "there is no token to call with: %v", err)
	}
	said := map[string]string{"authorization": "Bearer " + token}
	maps.Copy(said, b.fixed)
	return said, nil
}

// RequireTransportSecurity says no: whether the network between is to be trusted is not for a client to judge.
func (b *bearer) RequireTransportSecurity() bool { return false }
