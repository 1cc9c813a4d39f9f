//! What an operator does: the calls of AdminService, over the client's connection.
//!
//! The contract says which of them are safe to repeat (`idempotency_level`). These are repeated like a publish; any other is made once, and who
//! made it decides what an answer that did not come means.

use std::time::Duration;

use tonic::codegen::http::uri::PathAndQuery;

use crate::connection::Connection;
use crate::errors::Error;
use crate::retrying::Attempts;

/// A call that is made once may work for a while before it answers: it has no less than this.
const WORK: Duration = Duration::from_secs(15);

/// A request of AdminService, such as [`CancelJobsRequest`](crate::v1::CancelJobsRequest); the build implements it for each of them.
pub trait Operation: prost::Message + Clone + 'static {
    /// What it is answered with.
    type Answer: prost::Message + Default + 'static;
    #[doc(hidden)]
    const PATH: &'static str;
    #[doc(hidden)]
    const REPEATABLE: bool;
}

include!(concat!(env!("OUT_DIR"), "/operations.rs"));

/// Makes a call, repeated within `timeout` if the contract says that this is safe.
pub(crate) async fn operate<M: Operation>(
    connection: &Connection,
    message: M,
    timeout: Duration,
) -> Result<M::Answer, Error> {
    if !M::REPEATABLE {
        return attempt(connection, message, timeout.max(WORK)).await.map_err(Error::made_once);
    }
    let mut attempts = Attempts::within(timeout);
    loop {
        match attempt(connection, message.clone(), attempts.timeout()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => tokio::time::sleep(attempts.pause_after(error)?).await,
        }
    }
}

async fn attempt<M: Operation>(connection: &Connection, message: M, timeout: Duration) -> Result<M::Answer, Error> {
    let mut request = connection.operators_request(message);
    request.set_timeout(timeout);
    let mut caller = connection.caller();
    let call = async {
        caller.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
        caller.unary(request, PathAndQuery::from_static(M::PATH), tonic_prost::ProstCodec::default()).await
    };
    connection.answered(call, timeout).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_repeat_what_is_made_once() {
        let error = Error::no_answer("jobwire:50051").made_once();
        assert!(error.message.ends_with("the call may have taken effect, and ListActions says whether"), "{error}");
    }
}
