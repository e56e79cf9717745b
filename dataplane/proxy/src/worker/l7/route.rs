//! The route that a request takes now: looked up again where it was on hold, or where no backend took the request.

use std::sync::Arc;

use mc_core::outcome::RequestOutcome;

use super::session::{Note, Session};
use super::sides::Reply;
use crate::snapshot::RouteEntry;
use crate::worker::hold::Waited;
use crate::worker::phase::enter_relay;

/// When a client whose request could not wait may come again, in seconds.
const RETRY_AFTER_S: &str = "1";

/// The route that a request for `host` takes now. Where that is on hold, it waits, and takes the one that is there when the hold
/// is over. Nothing is read from the client meanwhile.
///
/// # Errors
/// There is none for it, the client has left, or too many wait.
pub(super) async fn current_route<R: Reply>(
    session: &Session,
    host: &[u8],
    note: &mut Note,
    reply: &mut R,
) -> Result<Arc<RouteEntry>, RequestOutcome> {
    loop {
        let route = session.route(host)?;
        if !route.live.hold.is_on(session.now_ms()) {
            return Ok(route);
        }
        // In a box: most requests never wait.
        Box::pin(wait(session, &route, note, reply)).await?;
    }
}

async fn wait<R: Reply>(
    session: &Session,
    route: &RouteEntry,
    note: &mut Note,
    reply: &mut R,
) -> Result<(), RequestOutcome> {
    let (worker, connection) = (&session.worker, &session.connection);
    enter_relay(worker, connection, route);
    // A client that has said that it sends no more may still listen; one of HTTP/2 is heard by its connection's task.
    let client = (R::IS_HTTP1 && !session.tls.has_ended()).then_some(&connection.socket);
    match worker.waiters.wait(worker, &route.live, client, |cx| reply.poll_gone(cx)).await {
        Waited::Over => Ok(()),
        Waited::Gone => Err(RequestOutcome::ClientGone),
        Waited::Full => {
            note.own_fields.push(("Retry-After", RETRY_AFTER_S.to_owned()));
            Err(RequestOutcome::HoldLimit)
        }
    }
}

/// Looks the route of a request up again that no backend took: its backends may be others by now. Whether they are.
///
/// # Errors
/// As of [`current_route`].
pub(super) async fn renew<R: Reply>(
    session: &Session,
    route: &mut Arc<RouteEntry>,
    note: &mut Note,
    target: &[u8],
    reply: &mut R,
) -> Result<bool, RequestOutcome> {
    let host = note.host.clone();
    let now = current_route(session, &host, note, reply).await?;
    // A route with other policies has not judged the request.
    if Arc::ptr_eq(&now, route) || now.spec.http.policies != route.spec.http.policies {
        return Ok(false);
    }
    note.follow(&now, target)?;
    *route = now;
    Ok(true)
}
