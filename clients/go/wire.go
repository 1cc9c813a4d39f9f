package jobwire

// Between Go's values and what travels: JSON text, texts for people, ids, and calls no larger than they may be.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
)

const (
	// What one Publish or Ack call may carry in all, less its own frame.
	maxCallBytes = 3<<20 - 4096
	// How many jobs or statements one Publish or Ack call may carry.
	maxCallItems = 1000
	// The largest payload or output that any queue can allow.
	maxDataBytes = 512 << 10
	// The largest checkpoint.
	maxCheckpointBytes = 64 << 10
	// The longest pause or time limit.
	longestSpan = 7 * 24 * time.Hour
)

// NewJobID returns a new UUID of version 7: unique anywhere, and sorted by time.
func NewJobID() string { return uuid.Must(uuid.NewV7()).String() }

// toJSON returns value as compact JSON text of at most limit bytes; nil is the empty text, which means that nothing is given.
func toJSON(value any, limit int) (string, *Error) {
	if value == nil {
		return "", nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "", &Error{Code: codes.InvalidArgument, Message: fmt.Sprintf("not JSON: %v", err)}
	}
	said := strings.TrimSuffix(text.String(), "\n")
	if !utf8.ValidString(said) {
		// A json.RawMessage travels as it is, and this would not travel at all.
		return "", &Error{Code: codes.InvalidArgument, Message: "not JSON: it is not valid UTF-8"}
	}
	if len(said) > limit {
		return "", &Error{Code: codes.InvalidArgument, Reason: "DATA_TOO_LARGE", Message: fmt.Sprintf(
			"%d bytes of JSON, but at most %d are taken: store the content elsewhere (object storage, a table) and send its key",
			len(said), limit)}
	}
	return said, nil
}

// fromJSON returns JSON text as it came; the empty text is nil.
func fromJSON(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// cleanText makes any string one that travels: valid Unicode without NUL, at most limit characters.
func cleanText(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit])
}

// endOf keeps the end of a long text, in valid Unicode.
func endOf(text string, limit int) string {
	text = cleanText(text, len(text))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[len(text)-limit:], "")
	}
	return text
}
