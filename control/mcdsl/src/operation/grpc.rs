//! An operation by gRPC: admission by the call's metadata, then its one message, then the response, within the time that the client waits for it.

use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::response::Response;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::Status;
use tonic_prost::ProstCodec;

use super::{Message, Shared, admit, is_stale, sender, within};
use crate::http::{BodyLimits, CountedBytes, bearer, body, is_grpc};
use crate::permit::{Access, Authority, Permit};
use crate::problem::{Kind, Problem};

pub(super) async fn unary<S, Req, Res, T, U, F>(shared: Arc<Shared<S, T, U>>, request: Request) -> Response
where
    S: Authority,
    Req: Message,
    Res: Message,
    T: Fn(&Req) -> String + Send + Sync + 'static,
    U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Res, Problem>> + Send + 'static,
{
    let max = shared.limits.body.max_bytes;
    // Everything else gets HTTP's status (the protocol's specification, "Requests").
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let time = match client_timeout(request.headers()) {
        Ok(timeout) => timeout.map_or(shared.limits.time, |timeout| timeout.min(shared.limits.time)),
        Err(problem) => return Status::from(problem).into_http(),
    };
    let answered = within(time, false, async {
        let (permit, request) = admitted::<_, Req, _, _>(&shared, request).await?;
        let call = Call::new(&shared, permit);
        let service = tower::service_fn(move |request: tonic::Request<Req>| {
            let done = call.start(request.into_inner());
            async move { Ok::<_, Status>(tonic::Response::new(done?.await?)) }
        });
        let mut server =
            tonic::server::Grpc::new(ProstCodec::<Res, Req>::default()).max_decoding_message_size(max);
        Ok(server.unary(service, request).await.map(Body::new))
    });
    answered.await.unwrap_or_else(|problem| Status::from(problem).into_http())
}

pub(super) async fn stream<S, Req, Res, T, U, F, St>(
    shared: Arc<Shared<S, T, U>>,
    request: Request,
) -> Response
where
    S: Authority,
    Req: Message,
    Res: Message,
    T: Fn(&Req) -> String + Send + Sync + 'static,
    U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync + 'static,
    F: Future<Output = Result<St, Problem>> + Send + 'static,
    St: Stream<Item = Result<Res, Problem>> + Send + 'static,
{
    let max = shared.limits.body.max_bytes;
    // Everything else gets HTTP's status (the protocol's specification, "Requests").
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let time = match client_timeout(request.headers()) {
        Ok(timeout) => timeout.map_or(shared.limits.time, |timeout| timeout.min(shared.limits.time)),
        Err(problem) => return Status::from(problem).into_http(),
    };
    let answered = within(time, false, async {
        let (permit, request) = admitted::<_, Req, _, _>(&shared, request).await?;
        let call = Call::new(&shared, permit);
        let service = tower::service_fn(move |request: tonic::Request<Req>| {
            let done = call.start(request.into_inner());
            async move {
                let items = done?.await?.map(|item| item.map_err(Status::from));
                Ok::<_, Status>(tonic::Response::new(items.boxed()))
            }
        });
        let mut server =
            tonic::server::Grpc::new(ProstCodec::<Res, Req>::default()).max_decoding_message_size(max);
        Ok(server.server_streaming(service, request).await.map(Body::new))
    });
    answered.await.unwrap_or_else(|problem| Status::from(problem).into_http())
}

/// A call that is permitted, until its message is there.
struct Call<S, T, U> {
    shared: Arc<Shared<S, T, U>>,
    permit: Mutex<Option<Permit>>,
}

impl<S, T, U> Call<S, T, U> {
    fn new(shared: &Arc<Shared<S, T, U>>, permit: Permit) -> Self {
        Self { shared: Arc::clone(shared), permit: Mutex::new(Some(permit)) }
    }

    fn start<Req, F>(&self, request: Req) -> Result<F, Status>
    where
        T: Fn(&Req) -> String,
        U: Fn(Arc<S>, Permit, Req) -> F,
    {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut permit = permit.ok_or_else(|| Status::internal("a call has one message"))?;
        permit.set_target((self.shared.target)(&request));
        Ok((self.shared.use_case)(Arc::clone(&self.shared.service), permit, request))
    }
}

/// How long the client waits: up to eight digits and a unit (the protocol's specification, "Timeout").
fn client_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parse = || {
        let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
        let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    };
    let wrong = || Problem::field("grpc-timeout", "must be up to eight digits and a unit: `5S`");
    parse().map(Some).ok_or_else(wrong)
}

/// Admits a call, then reads its body: one message.
async fn admitted<S: Authority, Req: Message, T, U>(
    shared: &Shared<S, T, U>,
    request: Request,
) -> Result<(Permit, http::Request<Full<Cursor<CountedBytes>>>), Problem> {
    let (parts, body) = request.into_parts();
    let access = Access::from(shared.operation);
    let mut permit = admit(&shared.service, access, bearer, &parts, String::new()).await?;
    let limits = BodyLimits { max_bytes: shared.limits.body.max_bytes + PREFIX_BYTES, ..shared.limits.body };
    let began = Instant::now();
    let bytes =
        body::read(body, &parts.headers, sender(&parts, &permit), &limits, &shared.limits.budget).await?;
    if is_stale(began) {
        permit = admit(&shared.service, access, bearer, &parts, String::new()).await?;
    }
    let malformed = |detail| Problem::new(Kind::Invalid, "malformed", detail);
    let Some(([flag, length @ ..], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("A call has one message."));
    };
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(malformed("A call has one message, and it has the length that its prefix states."));
    }
    if *flag != 0 {
        return Err(malformed("The message is compressed, which this server does not take."));
    }
    // Tonic would call what cannot be read an internal error.
    if Req::decode(message).is_err() {
        return Err(malformed("The message is not one of this method's requests."));
    }
    Ok((permit, http::Request::from_parts(parts, Full::new(Cursor::new(bytes)))))
}

/// Before each message: whether it is compressed, and its length (the protocol's specification, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
