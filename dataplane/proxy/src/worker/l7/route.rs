//! The route that a request takes now: looked up again where it was on hold, or where no backend took the request.

use std::sync::Arc;
use std::task::{Context, Poll};

use mc_core::outcome::RequestOutcome;

use super::session::{Note, Session};
use crate::snapshot::RouteEntry;
use crate::worker::hold::Waited;
use crate::worker::phase::enter_relay;

/// When a client whose request could not wait may come again, in seconds.
const RETRY_AFTER_S: &str = "1";

/// Who waits for a route.
pub(super) struct Waiting<F> {
    /// The client speaks HTTP/1: what it sends is not read meanwhile.
    pub(super) is_http1: bool,
    /// Whether it gave up, or was given up.
    pub(super) poll_gone: F,
}

/// The route that a request for `host` takes now. Where that is on hold, it waits, and takes the one that is there when the hold
/// is over. Nothing is read from the client meanwhile.
///
/// # Errors
/// There is none for it, the client has left, or too many wait.
pub(super) async fn current_route(
    session: &Session,
    host: &[u8],
    note: &mut Note,
    mut client: Waiting<impl FnMut(&mut Context<'_>) -> Poll<()>>,
) -> Result<Arc<RouteEntry>, RequestOutcome> {
    loop {
        let route = session.route(host)?;
        if !route.live.hold.is_on(session.now_ms()) {
            return Ok(route);
        }
        // In a box: most requests never wait.
        Box::pin(wait(session, &route, note, &mut client)).await?;
    }
}

async fn wait(
    session: &Session,
    route: &RouteEntry,
    note: &mut Note,
    client: &mut Waiting<impl FnMut(&mut Context<'_>) -> Poll<()>>,
) -> Result<(), RequestOutcome> {
    let (worker, connection) = (&session.worker, &session.connection);
    enter_relay(worker, connection, route);
    // A client that has said that it sends no more may still listen; one of HTTP/2 is heard by its connection's task.
    let socket = (client.is_http1 && !session.tls.has_ended()).then_some(&connection.socket);
    let address = connection.client.get().ip();
    match worker.waiters.wait(worker, &route.live, address, socket, &mut client.poll_gone).await {
        Waited::Over => Ok(()),
        Waited::Gone => Err(RequestOutcome::ClientGone),
        Waited::Full => {
            note.own_fields.push(("Retry-After", RETRY_AFTER_S.to_owned()));
            Err(RequestOutcome::HoldLimit)
        }
    }
}

/// Looks the route of a request up again that no backend took: its backends may be others by now. Whether they are. The caller hears
/// of a client that gives up.
///
/// # Errors
/// As of [`current_route`].
pub(super) async fn renew(
    session: &Session,
    route: &mut Arc<RouteEntry>,
    note: &mut Note,
    target: &[u8],
) -> Result<bool, RequestOutcome> {
    let host = note.host.clone();
    let is_http1 = !session.connection.requests.is_multiplexed();
    let now = current_route(
        session,
        &host,
        note,
        Waiting { is_http1, poll_gone: |_: &mut Context<'_>| Poll::Pending },
    )
    .await?;
    // A route with other policies has not judged the request.
    if Arc::ptr_eq(&now, route) || now.spec.http.policies != route.spec.http.policies {
        return Ok(false);
    }
    note.follow(&now, target)?;
    *route = now;
    Ok(true)
}
