//! Listening sockets: one for each worker on the same address (`SO_REUSEPORT`), and accepting on them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::descriptors;
use crate::socket::Socket;

/// Connections that may wait for a worker.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to the address and listens. The second value is the address with the port that
/// the kernel chose where 0 was asked.
///
/// Accepted sockets inherit no-delay from these.
///
/// # Errors
/// The address is in use (also by a socket that would share it), not ours, or not permitted.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // SO_REUSEPORT would share the port with any other program of this user that sets it too. A bind
    // without it fails where anyone listens; the port is taken for the moment between the two binds only.
    let probe = socket(address, false)?;
    rustix::net::bind(&probe, &address)?;
    rustix::net::listen(&probe, 1)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&probe)?)?;
    drop(probe);
    Ok((join(address, count)?, address))
}

/// Binds `count` further sockets to an address that sockets of ours are bound to.
///
/// # Errors
/// Somebody else's are.
pub fn join(address: SocketAddr, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let fd = socket(address, true)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
        sockets.push(fd);
    }
    Ok(sockets)
}

/// Takes one waiting connection and says who it is.
///
/// # Errors
/// `WouldBlock` where none waits; no descriptor left; the client has gone.
pub fn accept(listener: &Socket) -> io::Result<(OwnedFd, SocketAddr)> {
    let (fd, peer) = rustix::net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.ok_or(rustix::io::Errno::CONNABORTED)?;
    let fd = descriptors::within(fd)?;
    Ok((fd, SocketAddr::try_from(peer)?))
}

fn socket(address: SocketAddr, share: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Connections of an earlier process that still wait in TIME-WAIT do not hold the port.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if share {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn binds_one_socket_for_each_worker_and_refuses_a_port_in_use() {
        let (sockets, address) = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(sockets.len(), 2);
        assert_ne!(address.port(), 0);
        let error = bind(address, 1).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        drop(sockets);
        bind(address, 1).unwrap();
    }

    #[test]
    fn refuses_an_address_that_is_not_ours() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    }
}
