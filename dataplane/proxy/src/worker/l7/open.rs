//! Opens connections to backends: TCP, the PROXY header, TLS and the proof of who answers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mc_core::model::Protocol;
use mc_uring::{Shared, Socket, Tls};
use rustls::pki_types::ServerName;

use super::stream::Stream;
use crate::snapshot::RouteEntry;
use crate::tls::{BackendTls, Trust};

/// The way to one of a route's backends.
pub(super) struct Way {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<(Arc<BackendTls>, Option<Arc<Trust>>)>,
}

/// Which connections may stand for each other: those to the same address, and with TLS those that were verified by the
/// same authorities for the same name. HTTP/1.1 and HTTP/2 have pools of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: SocketAddr,
    verified: Option<(u64, ServerName<'static>)>,
}

/// A connection over which HTTP may be spoken.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// What the backend has said already, right after its part of the TLS handshake.
    pub(super) early: Vec<u8>,
}

impl Key {
    /// Whether they go there.
    pub(super) fn is_to(&self, address: SocketAddr) -> bool {
        self.address == address
    }
}

impl Way {
    /// The way to the backend at `index`, as it is to be trusted now.
    pub(super) fn to(route: &RouteEntry, index: usize) -> Self {
        let backend = route.backend(index);
        let tls = route.backend_tls(index).map(|tls| (Arc::clone(tls), tls.authority.trust()));
        Self { address: backend.address, protocol: backend.protocol, tls }
    }

    /// Whether HTTP/2 is spoken there.
    pub(super) fn is_http2(&self) -> bool {
        self.protocol.is_http2()
    }

    /// What a connection must match to have come this way.
    pub(super) fn key(&self) -> Key {
        let verified =
            self.tls.as_ref().and_then(|(tls, trust)| Some((trust.as_ref()?.id, tls.name.clone())));
        Key { address: self.address, verified }
    }

    /// Opens a connection, and sends `header` before anything else.
    pub(super) async fn open(&self, shared: &Shared, header: &[u8]) -> io::Result<Opened> {
        let socket = Socket::connect(self.address)?;
        socket.writable().await?;
        socket.take_error()?;
        socket.send_all(header).await?;
        if !self.protocol.is_tls() {
            return Ok(Opened { stream: Stream::plain(socket), early: Vec::new() });
        }
        let Some((backend, trust)) = &self.tls else {
            return Err(io::Error::other("nobody vouches for it: the route names no certificate authority"));
        };
        let file = backend.authority.path().display();
        let Some(trust) = trust else {
            return Err(io::Error::other(format!(
                "nobody vouches for it: {file} cannot be used, see the log"
            )));
        };
        let config = if self.is_http2() { &trust.h2 } else { &trust.https };
        let tls = Tls::client(Rc::new(socket), Arc::clone(config), backend.name.clone())?;
        let mut early = Vec::new();
        let shaken = tls.handshake(shared, &[], &mut early).await;
        shaken.map_err(|error| backend.explain(error))?;
        if self.is_http2() && !tls.with(|common| common.alpn_protocol() == Some(b"h2")) {
            return Err(io::Error::other("it does not speak HTTP/2 over TLS: it did not choose h2 by ALPN"));
        }
        if !self.is_http2() && !early.is_empty() {
            return Err(io::Error::other("it speaks before it is asked: that is no HTTP/1.1"));
        }
        Ok(Opened { stream: Stream::Tls(tls), early })
    }
}
