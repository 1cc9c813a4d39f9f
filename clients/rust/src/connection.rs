//! The connection to Jobwire: where it leads, its settings, and calls that are repeated where that helps.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::errors::Error;
use crate::retrying::Attempts;
use crate::v1::queue_service_client::QueueServiceClient;

/// A page of ListJobs is the largest answer; requests stay below 4 MiB by the contract.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where Jobwire is, and how to speak to it. A `&str` is one without TLS and token. The token is in no text that is shown or logged.
#[derive(Clone)]
pub struct Target {
    address: String,
    tls: Option<ClientTlsConfig>,
    token: Option<String>,
    actor: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).finish_non_exhaustive()
    }
}

impl From<&str> for Target {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

impl From<String> for Target {
    fn from(address: String) -> Self {
        Self::new(address)
    }
}

impl Target {
    /// Host and port, such as `127.0.0.1:50051`, without encryption. `dns:///` before it, as other languages want it, is fine.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), tls: None, token: None, actor: None }
    }

    /// Speak TLS, and trust the authorities that this system trusts.
    pub fn tls(mut self) -> Self {
        self.tls = Some(ClientTlsConfig::new().with_native_roots());
        self
    }

    /// Speak TLS, and trust the authorities of this PEM file alone.
    pub fn tls_with_ca(mut self, ca_file: impl AsRef<Path>) -> std::io::Result<Self> {
        let pem = std::fs::read(ca_file)?;
        self.tls = Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
        Ok(self)
    }

    /// Name this token in every call. Without TLS whoever listens can read it.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// For whom calls are made: the name in the record of what operators do.
    pub fn actor(mut self, name: impl Into<String>) -> Self {
        self.actor = Some(name.into());
        self
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let refused = |why: &dyn std::fmt::Display| {
            Error::invalid(format!("{:?} is no address of a server ({why}): give host:port", self.address))
        };
        let host = self.address.trim_start_matches("dns:///");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(|error| refused(&error))?;
        if host.contains('/') || endpoint.uri().port_u16().is_none() {
            return Err(refused(&"host and port are wanted"));
        }
        let endpoint = endpoint
            // A connection that died unnoticed is found out, also while no call is made.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            // Below the time of an attempt, so that one says that nobody answers there, and not only that it took long.
            .connect_timeout(Duration::from_secs(3));
        match &self.tls {
            None => Ok(endpoint),
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| {
                Error::invalid(format!("TLS to {} cannot be set up: {}", self.address, deepest(&error)))
            }),
        }
    }
}

/// Metadata is ASCII.
fn ascii(text: &str) -> String {
    text.chars().map(|letter| if matches!(letter, ' '..='~') { letter } else { '?' }).collect()
}

fn deepest(mut error: &dyn std::error::Error) -> String {
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// What tells the server the token.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Error> {
    let is_word = !token.is_empty() && token.bytes().all(|letter| letter.is_ascii_graphic());
    let said = format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok().filter(|_| is_word);
    let mut said = said.ok_or_else(|| {
        Error::invalid("a token must be a word of plain ASCII, without blanks or ends of lines".into())
    })?;
    said.set_sensitive(true);
    Ok(said)
}

pub(crate) type Stub = QueueServiceClient<Channel>;

/// One connection, made with the first call and again whenever it breaks. Clones share it until one of them leaves it.
///
/// It is to one address: a name is looked up at each connect, and Acks go to the replica that serves the worker's stream.
/// tonic has no backoff of its own; the pauses between our calls are what spares a server that is coming back.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) target: String,
    endpoint: Endpoint,
    channel: Channel,
    /// Cancelled when the channel is left.
    left: CancellationToken,
    authorization: Option<MetadataValue<Ascii>>,
    actor: Option<MetadataValue<Ascii>>,
}

impl Connection {
    /// Sends nothing yet. To be called within a Tokio runtime.
    pub(crate) fn new(target: &Target) -> Result<Self, Error> {
        let authorization = target.token.as_deref().map(bearer);
        let endpoint = target.endpoint()?;
        Ok(Self {
            target: target.address.clone(),
            channel: endpoint.connect_lazy(),
            left: CancellationToken::new(),
            endpoint,
            authorization: authorization.transpose()?,
            actor: target.actor.as_deref().and_then(|name| ascii(name).parse().ok()),
        })
    }

    /// One that may be left without those that share it.
    pub(crate) fn apart(self) -> Self {
        Self { left: CancellationToken::new(), ..self }
    }

    /// Goes on over a new connection, since this one may be dead without anybody having said so. Calls that are under way end without an answer.
    pub(crate) fn leave(&mut self) {
        self.left.cancel();
        self.left = CancellationToken::new();
        self.channel = self.endpoint.connect_lazy();
    }

    pub(crate) fn stub(&self) -> Stub {
        QueueServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// What is sent, with the token.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// The same, with the name of who operates.
    pub(crate) fn operators_request<M>(&self, message: M) -> Request<M> {
        let mut request = self.request(message);
        if let Some(actor) = &self.actor {
            request.metadata_mut().insert("x-jobwire-actor", actor.clone());
        }
        request
    }

    /// Calls any method by its path.
    pub(crate) fn caller(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Makes a call, repeated with growing pauses within `timeout`.
    pub(crate) async fn call<M: Clone, R, F>(
        &self,
        method: impl Fn(Stub, Request<M>) -> F,
        message: M,
        timeout: Duration,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut attempts = Attempts::within(timeout);
        loop {
            match self.attempt(&method, message.clone(), attempts.timeout()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tokio::time::sleep(attempts.pause_after(error)?).await,
            }
        }
    }

    /// Makes a call once.
    pub(crate) async fn attempt<M, R, F>(
        &self,
        method: impl Fn(Stub, Request<M>) -> F,
        message: M,
        timeout: Duration,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut request = self.request(message);
        // Tells the server; the time that connecting takes is counted here alone.
        request.set_timeout(timeout);
        self.answered(method(self.stub(), request), timeout).await
    }

    /// The answer to a call that is made over this connection, or what is wrong.
    pub(crate) async fn answered<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, Status>>,
        timeout: Duration,
    ) -> Result<R, Error> {
        match self.left.run_until_cancelled(tokio::time::timeout(timeout, call)).await {
            Some(Ok(Ok(answer))) => Ok(answer.into_inner()),
            Some(Ok(Err(status))) => Err(Error::from_status(&status, &self.target)),
            Some(Err(_)) | None => Err(Error::no_answer(&self.target)),
        }
    }
}
