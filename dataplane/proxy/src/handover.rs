//! Handing over to a new process without a gap: the listening sockets go over a Unix socket, with what waits in their
//! queues; the old process finishes the connections that it has.
//!
//! In order: the new one connects to [`PATH`]; the old one lets no change be made any more and sends its sockets; the new
//! one reads the database, accepts on the sockets beside the old one, takes over the firewall in the kernel, and says so;
//! the old one stops accepting. If the new one goes away before it has said so, the old one goes on as if nothing had been.
//!
//! On the wire: a length (four bytes, big-endian), a JSON `Head`, then single bytes that carry the descriptors in the
//! head's order (unix(7), `SCM_RIGHTS`). The new one answers `READY`, and in the same message who it is (JSON), which older
//! programs leave out; the old one `GONE`.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// The socket's name, in the folder of everything that must not be lost.
pub const PATH: &str = "mc-proxy.handover";

/// The new process accepts.
const READY: u8 = b'R';

/// The old process does no longer.
const GONE: u8 = b'G';

/// What this code speaks. Another version is refused, and both go on as they are.
const VERSION: u32 = 1;

/// Descriptors in one message: the kernel takes 253.
const AT_ONCE: usize = 64;

/// The longest head: a thousand listeners.
const MAX_HEAD: usize = 1 << 20;

/// The longest answer: it comes in one piece.
const MAX_ANSWER: usize = 512;

/// How long the other side may take for a step. A million routes are read in a few seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is handed over, in the order of its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// Where the admin API and metrics are served over TCP.
    admin_tcp: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    listeners: Vec<HeadListener>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HeadListener {
    name: String,
    address: SocketAddr,
    sockets: usize,
}

/// All that is handed over.
#[derive(Debug)]
pub struct Handed {
    /// The lock on the database.
    pub lock: OwnedFd,
    /// Where the next process will ask.
    pub handover: OwnedFd,
    /// The admin API's Unix socket.
    pub admin: OwnedFd,
    /// The admin API's TCP socket.
    pub admin_tcp: Option<(SocketAddr, OwnedFd)>,
    /// The metrics' socket.
    pub metrics: Option<(SocketAddr, OwnedFd)>,
    /// Sockets of listeners, by their names.
    pub listeners: Vec<HandedListener>,
}

/// A listener's sockets.
#[derive(Debug)]
pub struct HandedListener {
    /// Its name.
    pub name: String,
    /// Where they listen.
    pub address: SocketAddr,
    /// All of them: each has a queue.
    pub sockets: Vec<OwnedFd>,
}

/// A process, as it introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// [`ProcessId`].
    pub process: String,
    /// The system's number of it.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// The old process, which waits to hear that the new one accepts.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The other side has gone, or takes too long.
    #[error("the other mc-proxy has broken off the handover")]
    Io(#[from] io::Error),
    /// The other side says what cannot be.
    #[error("the other mc-proxy speaks another handover: stop it, and start this one")]
    Strange,
}

impl Identity {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let (process, pid) = (ProcessId::current().to_string(), std::process::id());
        Self { process, pid, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

impl Handed {
    /// Sends all of it, and waits until the other side accepts. Says who that is, as far as it says so.
    ///
    /// # Errors
    /// It does not: whoever sends keeps everything, and goes on.
    pub fn send(&self, stream: &mut UnixStream) -> Result<Identity, HandoverError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let listeners = self.listeners.iter().map(|it| HeadListener {
            name: it.name.clone(),
            address: it.address,
            sockets: it.sockets.len(),
        });
        let head = Head {
            version: VERSION,
            admin_tcp: self.admin_tcp.as_ref().map(|(address, _)| *address),
            metrics: self.metrics.as_ref().map(|(address, _)| *address),
            listeners: listeners.collect(),
        };
        let head = serde_json::to_vec(&head).map_err(io::Error::from)?;
        let len = u32::try_from(head.len()).map_err(|_too_long| HandoverError::Strange)?;
        stream.write_all(&len.to_be_bytes())?;
        stream.write_all(&head)?;
        let mut fds = vec![self.lock.as_fd(), self.handover.as_fd(), self.admin.as_fd()];
        fds.extend([&self.admin_tcp, &self.metrics].into_iter().flatten().map(|(_, fd)| fd.as_fd()));
        fds.extend(self.listeners.iter().flat_map(|it| &it.sockets).map(|fd| fd.as_fd()));
        for some in fds.chunks(AT_ONCE) {
            send_fds(stream, some)?;
        }
        let mut answer = [0; MAX_ANSWER];
        let len = stream.read(&mut answer)?;
        match answer[..len].split_first() {
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some((&READY, identity)) => Ok(serde_json::from_slice(identity).unwrap_or_default()),
            Some(_) => Err(HandoverError::Strange),
        }
    }

    /// Says that nothing is accepted here any more.
    pub fn gone(stream: &mut UnixStream) {
        // The other side has accepted already, and goes on without it.
        stream.write_all(&[GONE]).unwrap_or(());
    }

    /// Asks whoever runs with this folder for everything. `None`: nobody does.
    ///
    /// # Errors
    /// Somebody does, and does not hand over.
    pub fn ask(root: &Path) -> Result<Option<(Self, Predecessor)>, HandoverError> {
        let mut stream = match UnixStream::connect(root.join(PATH)) {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > MAX_HEAD {
            return Err(HandoverError::Strange);
        }
        let mut head = vec![0; len];
        stream.read_exact(&mut head)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_other_shape| HandoverError::Strange)?;
        if head.version != VERSION {
            return Err(HandoverError::Strange);
        }
        let tcp = usize::from(head.admin_tcp.is_some()) + usize::from(head.metrics.is_some());
        let count = 3 + tcp + head.listeners.iter().map(|it| it.sockets).sum::<usize>();
        let mut fds = Vec::with_capacity(count.min(MAX_HEAD));
        while fds.len() < count {
            let before = fds.len();
            receive_fds(&stream, &mut fds)?;
            if fds.len() == before {
                return Err(HandoverError::Strange);
            }
        }
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(HandoverError::Strange);
        let (lock, handover, admin) = (next()?, next()?, next()?);
        let mut of = |address: Option<SocketAddr>| match address {
            Some(address) => next().map(|fd| Some((address, fd))),
            None => Ok(None),
        };
        let (admin_tcp, metrics) = (of(head.admin_tcp)?, of(head.metrics)?);
        let listeners = head.listeners.into_iter().map(|it| HandedListener {
            name: it.name,
            address: it.address,
            sockets: fds.by_ref().take(it.sockets).collect(),
        });
        let listeners = listeners.collect();
        let handed = Self { lock, handover, admin, admin_tcp, metrics, listeners };
        Ok(Some((handed, Predecessor(stream))))
    }
}

impl Predecessor {
    /// Says that we accept, and waits until the old process does no longer.
    ///
    /// # Errors
    /// It has gone without a word, which is as good.
    pub fn relieve(mut self) -> io::Result<()> {
        let mut answer = vec![READY];
        answer.extend(serde_json::to_vec(&Identity::current())?);
        self.0.write_all(&answer)?;
        self.0.read_exact(&mut [0])
    }
}

fn send_fds(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_fds(stream: &UnixStream, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn handed(listeners: usize, sockets: usize) -> Handed {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let tcp = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap(), OwnedFd::from(listener))
        };
        let listeners = (0..listeners).map(|number| {
            let (address, first) = tcp();
            let more = (1..sockets).map(|_| first.try_clone().unwrap());
            let mut all: Vec<OwnedFd> = more.collect();
            all.push(first);
            HandedListener { name: format!("l{number}"), address, sockets: all }
        });
        let listeners = listeners.collect();
        Handed {
            lock: file(),
            handover: file(),
            admin: file(),
            admin_tcp: None,
            metrics: Some(tcp()),
            listeners,
        }
    }

    /// Hands over, the other side accepting or not. What came, and what the old side heard.
    fn hand_over(what: Handed, accept: bool) -> (Handed, Result<Identity, HandoverError>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(PATH)).unwrap();
        std::thread::scope(|scope| {
            let old = scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let sent = what.send(&mut stream);
                Handed::gone(&mut stream);
                sent
            });
            let (came, predecessor) = Handed::ask(folder.path()).unwrap().unwrap();
            if accept {
                predecessor.relieve().unwrap();
            } else {
                drop(predecessor);
            }
            (came, old.join().unwrap())
        })
    }

    #[test]
    fn every_socket_arrives_and_is_the_same() {
        let (came, sent) = hand_over(handed(70, 3), true);
        assert_eq!(sent.unwrap(), Identity::current());
        assert_eq!((came.listeners.len(), came.admin_tcp.is_none()), (70, true));
        for (number, listener) in came.listeners.iter().enumerate() {
            assert_eq!((listener.name.as_str(), listener.sockets.len()), (&*format!("l{number}"), 3));
            for socket in &listener.sockets {
                let address = SocketAddr::try_from(rustix::net::getsockname(socket).unwrap()).unwrap();
                assert_eq!(address, listener.address);
            }
        }
        let (address, socket) = came.metrics.unwrap();
        assert_eq!(SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap(), address);
    }

    #[test]
    fn a_new_process_that_goes_away_leaves_the_old_one_everything() {
        let (_, sent) = hand_over(handed(2, 2), false);
        assert!(matches!(sent, Err(HandoverError::Io(_))), "{sent:?}");
    }

    #[test]
    fn where_nobody_runs_nothing_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Handed::ask(folder.path()).unwrap().is_none());
        // Left behind by a process that is gone.
        drop(UnixListener::bind(folder.path().join(PATH)).unwrap());
        assert!(Handed::ask(folder.path()).unwrap().is_none());
    }

    #[test]
    fn what_speaks_otherwise_is_refused() {
        for said in [
            &b"\xff\xff\xff\xff"[..],
            b"\0\0\0\x02{}",
            b"\0\0\0\x01",
            b"\0\0\0\x39{\"version\":2,\"admin_tcp\":null,\"metrics\":null,\"listeners\":[]}",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(folder.path().join(PATH)).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| listener.accept().unwrap().0.write_all(said).unwrap());
                Handed::ask(folder.path()).unwrap_err();
            });
        }
    }
}
