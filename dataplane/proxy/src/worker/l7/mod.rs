//! Routes that terminate TLS: the handshake, and then HTTP in the version that both sides know.

mod attempt;
mod backend;
mod checks;
mod encode;
mod exchange;
mod fault;
mod h1;
mod h2;
mod mirror;
mod mux;
mod open;
mod route;
mod session;
mod sides;
mod stream;
mod to_http1;
mod to_http2;
mod wire;

use std::io;
use std::rc::Rc;

use mc_core::outcome::Outcome;
use mc_uring::Tls;
use mc_uring::ktls::InUserSpace;

use super::Worker;
use super::connection::Connection;
use super::hello::{Refusal, Routed};

pub(super) use backend::Pool;
use session::{Session, is_name};

/// Serves a client from the handshake to the end of its connection.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    routed: Routed,
) -> Result<Outcome, Refusal> {
    let name = Some(&*connection.target.borrow().name).filter(|name| is_name(name)).map(str::to_owned);
    let terminator = &worker.policy.tls;
    if !terminator.serves(name.as_deref()) {
        return Err(Refusal::told(Outcome::NoCertificate));
    }
    let asked = routed.route.asked();
    let (auth, authority) = (routed.route.spec.http.client_auth, routed.route.client_ca.as_deref());
    let Some(config) = terminator.config(auth, authority) else {
        connection.target.borrow_mut().detail =
            "clients' certificates cannot be verified: see the log".into();
        return Err(Refusal::told(Outcome::TlsFailed));
    };
    let Ok(tls) = Tls::server(Rc::clone(&connection.socket), config) else {
        return Err(Refusal::told(Outcome::TlsFailed));
    };
    let early = routed.early.with(worker, <[u8]>::to_vec);
    let mut plain = Vec::new();
    if let Err(error) = tls.handshake(&worker.shared, &early, &mut plain).await {
        if let Some(outcome) = connection.stop.get() {
            return Ok(outcome);
        }
        connection.target.borrow_mut().detail = error.to_string().into();
        return Ok(Outcome::TlsFailed);
    }
    drop(early);
    let session = Session::new(worker, connection, routed.incoming, tls, asked);
    let is_http2 = session.tls.with(|common| common.alpn_protocol() == Some(b"h2"));
    if let Err(error) = give_keys(worker, &session.tls).await {
        connection.target.borrow_mut().detail = error.to_string().into();
        return Ok(connection.stop.get().unwrap_or(Outcome::TlsFailed));
    }
    let session = Rc::new(session);
    let outcome = if is_http2 {
        // In a box: the engine must not weigh on connections of HTTP/1.1.
        Box::pin(h2::serve(Rc::clone(&session), plain)).await
    } else {
        h1::serve(&session, plain).await
    };
    session.close().await;
    Ok(connection.stop.get().unwrap_or(outcome))
}

/// Hands the keys to the kernel, where it takes them, and counts what came of it.
///
/// # Errors
/// The connection is lost.
async fn give_keys(worker: &Worker, tls: &Tls) -> io::Result<()> {
    let kernel = match worker.policy.tls.kernel() {
        Ok(kernel) => kernel,
        Err(_why_not) => {
            worker.stats.tls_in_user_space[InUserSpace::NoKernelTls as usize].add(1);
            return Ok(());
        }
    };
    // Session tickets would go with the first response, and have to go before.
    tls.flush(&worker.shared).await?;
    match tls.offload(kernel)? {
        Ok(()) => worker.stats.tls_in_kernel.add(1),
        Err(reason) => worker.stats.tls_in_user_space[reason as usize].add(1),
    }
    Ok(())
}
