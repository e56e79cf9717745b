//! Checks over HTTP/2: a `GET`, and the health service of gRPC (`grpc.health.v1`, the gRPC Health Checking Protocol).
//!
//! The engine is driven here, and no task is left behind: a check that is given up closes its connection. What a backend
//! may say is bounded: its head by the engine, a message by [`MAX_MESSAGE`].

use bytes::Bytes;
use h2::RecvStream;
use http::{Method, Request, Response, StatusCode, Uri, header};
use mc_core::model::CheckKind;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Code;

use super::{CheckKey, CheckTls, judge_status};

/// Bytes of the largest head that a backend may answer with.
const MAX_HEAD: u32 = 32 * 1024;

/// Bytes of the largest message that is read: a health status has two.
const MAX_MESSAGE: usize = 4 * 1024;

/// Bytes before each message of gRPC: a flag and a length.
const PREFIX: usize = 5;

/// Characters of what a backend says of its refusal that are repeated.
const MAX_REASON: usize = 200;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Makes the check's request on a new connection, and judges what comes back.
pub(super) async fn ask<S>(key: &CheckKey, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let is_grpc = key.check.kind == CheckKind::Grpc;
    let (request, message) = if is_grpc { health_request(key)? } else { (get(key)?, None) };
    let cannot = |error: h2::Error| format!("cannot speak HTTP/2: {error}");
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(cannot)?;
    let asking = async {
        let mut sender = sender.ready().await.map_err(cannot)?;
        let (answer, mut body) = sender.send_request(request, message.is_none()).map_err(cannot)?;
        if let Some(message) = message {
            body.send_data(message, true).map_err(cannot)?;
        }
        let response = answer.await.map_err(|error| format!("no answer: {error}"))?;
        if is_grpc {
            judge_health(response, &key.check.service).await
        } else {
            judge_status(key, response.status())
        }
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = connection => match ended {
            // The connection may end with the answer already there.
            Ok(()) => asking.await,
            Err(error) => Err(cannot(error)),
        },
    }
}

fn request(key: &CheckKey, method: Method, path: &str) -> Result<http::request::Builder, String> {
    let scheme = if key.tls == CheckTls::Off { "http" } else { "https" };
    let uri = Uri::builder().scheme(scheme).authority(key.authority()).path_and_query(path).build();
    let uri = uri.map_err(|error| format!("the check's path or host cannot be sent: {error}"))?;
    Ok(Request::builder().method(method).uri(uri).header(header::USER_AGENT, "mc-proxy-check"))
}

fn get(key: &CheckKey) -> Result<Request<()>, String> {
    let request = request(key, Method::GET, &key.check.path)?.body(());
    request.map_err(|error| format!("the check's request cannot be sent: {error}"))
}

fn health_request(key: &CheckKey) -> Result<(Request<()>, Option<Bytes>), String> {
    let request = request(key, Method::POST, "/grpc.health.v1.Health/Check")?
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{}m", key.check.timeout_ms))
        .body(())
        .map_err(|error| format!("the check's request cannot be sent: {error}"))?;
    let message = HealthCheckRequest { service: key.check.service.clone() }.encode_to_vec();
    let length = u32::try_from(message.len()).expect("the name of a service is short");
    let framed = [&[0], &length.to_be_bytes()[..], &message].concat();
    Ok((request, Some(framed.into())))
}

/// Healthy is what says `SERVING`.
async fn judge_health(response: Response<RecvStream>, service: &str) -> Result<(), String> {
    let whole = if service.is_empty() { String::new() } else { format!(" of {service}") };
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("gRPC health{whole} answered HTTP status {}", head.status));
    }
    let broke = |error: h2::Error| format!("gRPC health{whole} broke off: {error}");
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broke)?;
        if message.len() + piece.len() > MAX_MESSAGE {
            return Err(format!("gRPC health{whole} answered more than {MAX_MESSAGE} bytes"));
        }
        message.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(broke)?;
    }
    let trailers = body.trailers().await.map_err(broke)?.unwrap_or_default();
    let field = |name| head.headers.get(name).or_else(|| trailers.get(name)).map(http::HeaderValue::as_bytes);
    let Some(code) = field("grpc-status") else {
        return Err(format!("gRPC health{whole} answered without grpc-status: that is no gRPC"));
    };
    let code = Code::from_bytes(code);
    if code != Code::Ok {
        let said = String::from_utf8_lossy(field("grpc-message").unwrap_or_default());
        let said: String = said.chars().take(MAX_REASON).collect();
        let colon = if said.is_empty() { "" } else { ": " };
        return Err(format!("gRPC health{whole} answered {}{colon}{said}", word(code)));
    }
    let status = match decode(&message) {
        Some(ServingStatus::Serving) => return Ok(()),
        Some(ServingStatus::Unknown) => "UNKNOWN",
        Some(ServingStatus::NotServing) => "NOT_SERVING",
        Some(ServingStatus::ServiceUnknown) => "SERVICE_UNKNOWN",
        None => return Err(format!("gRPC health{whole} answered no health status")),
    };
    Err(format!("gRPC health{whole} is {status}"))
}

/// The status in a framed message that is not compressed.
fn decode(framed: &[u8]) -> Option<ServingStatus> {
    let (prefix, message) = framed.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    ServingStatus::try_from(HealthCheckResponse::decode(message).ok()?.status).ok()
}

/// The name of a status code as the specification of gRPC writes it.
fn word(code: Code) -> String {
    let mut word = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
    }
    word
}
