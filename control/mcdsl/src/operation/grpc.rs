//! An operation by gRPC: admission by the call's metadata, then its one message, then the response.

use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::{Stream, StreamExt as _};
use http_body_util::Full;
use tonic::Status;
use tonic_prost::ProstCodec;

use super::{Message, Shared, admit, source, within};
use crate::http::{BodyLimits, CountedBytes, bearer, body};
use crate::permit::{Access, Authority, Permit};
use crate::problem::Problem;

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
    let answered = within(shared.limits.time, false, async {
        let (permit, request) = admitted(&shared, request).await?;
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
    let answered = within(shared.limits.time, false, async {
        let (permit, request) = admitted(&shared, request).await?;
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

/// Admits a call, then reads its body.
async fn admitted<S: Authority, T, U>(
    shared: &Shared<S, T, U>,
    request: Request,
) -> Result<(Permit, http::Request<Full<Cursor<CountedBytes>>>), Problem> {
    let (parts, body) = request.into_parts();
    let permit =
        admit(&shared.service, Access::from(shared.operation), bearer, &parts, String::new()).await?;
    // A message has five bytes before it.
    let limits = BodyLimits { max_bytes: shared.limits.body.max_bytes + 5, ..shared.limits.body };
    let bytes = body::read(body, &parts.headers, source(&parts), &limits, &shared.limits.budget).await?;
    Ok((permit, http::Request::from_parts(parts, Full::new(Cursor::new(bytes)))))
}
