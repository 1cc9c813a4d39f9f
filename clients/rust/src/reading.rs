//! What the generated messages lack to be read at ease.

use serde::de::DeserializeOwned;

use crate::v1::{Job, JobState, NotCreatedReason, PublishResult};

impl Job {
    /// Whether it is completed, failed or cancelled.
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), JobState::Completed | JobState::Failed | JobState::Cancelled)
    }

    /// Where it stands, in the words of the SQL view: `created`, `retry`, `active`, `completed`, `cancelled`, `failed`, `blocked`.
    pub fn state_name(&self) -> String {
        self.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase()
    }

    /// What it completed with; None if it has no output.
    pub fn output_as<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        if self.output.is_empty() { Ok(None) } else { serde_json::from_str(&self.output).map(Some) }
    }
}

impl PublishResult {
    /// Why the job was not stored, such as `DUPLICATE_ID`, or `OTHER` for a reason that is newer than this client; empty if it was.
    pub fn reason_name(&self) -> &'static str {
        match NotCreatedReason::try_from(self.reason) {
            Ok(NotCreatedReason::Unspecified) => "",
            Ok(reason) => reason.as_str_name().trim_start_matches("NOT_CREATED_REASON_"),
            Err(_) => "OTHER",
        }
    }
}
