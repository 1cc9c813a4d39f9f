//! Between Rust values and what travels: JSON text, spans of time, and the limits of one call.

use std::time::Duration;

use prost::Message;
use serde::Serialize;

use crate::errors::Error;

/// The largest payload or output that any queue can allow, in bytes.
pub(crate) const MAX_DATA_BYTES: usize = 512 * 1024;

/// The largest checkpoint, in bytes.
pub(crate) const MAX_CHECKPOINT_BYTES: usize = 64 * 1024;

/// What one Publish or Ack call may carry in all, less its own frame, in bytes.
pub(crate) const MAX_CALL_BYTES: usize = 3 * 1024 * 1024 - 4096;

/// How many jobs or statements one Publish or Ack call may carry.
pub(crate) const MAX_CALL_ITEMS: usize = 1000;

/// The longest pause or time limit.
pub(crate) const LONGEST_SPAN: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many bytes a message takes in a call that repeats it.
pub(crate) fn size_in_call(message: &impl Message) -> usize {
    let size = message.encoded_len();
    size + prost::length_delimiter_len(size) + 1
}

/// JSON text of at most `limit` bytes.
pub(crate) fn to_json(value: &impl Serialize, limit: usize) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|error| Error::invalid(format!("not JSON: {error}")))?;
    if text.len() > limit {
        return Err(Error::too_large(text.len(), limit));
    }
    Ok(text)
}

/// Cuts a text to so many characters, and makes it one that PostgreSQL takes.
pub(crate) fn clean_text(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A span as it travels; one that is too long for that becomes the longest, which the server refuses with its own words.
pub(crate) fn to_duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(span).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A span that travelled; absent or negative is none at all.
pub(crate) fn from_duration(span: Option<prost_types::Duration>) -> Duration {
    span.and_then(|span| Duration::try_from(span).ok()).unwrap_or_default()
}
