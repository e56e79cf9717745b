//! Unix sockets that only their owner can open.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket's path, removed with it unless another process has the socket now.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    pub(crate) is_kept: bool,
}

impl SocketPath {
    /// This path; `is_kept`: another process has the socket.
    pub(crate) fn new(path: &Path, is_kept: bool) -> Self {
        Self { path: path.to_owned(), is_kept }
    }

    /// Leaves the path to somebody else.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may be gone already; a stale one is replaced at the next start.
            std::fs::remove_file(&self.path).unwrap_or(());
        }
    }
}

/// A Unix socket that only its owner can open, at a path that is free.
pub(crate) fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    let file = std::fs::File::from(OwnedFd::from(socket));
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let socket = socket2::Socket::from(OwnedFd::from(file));
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let bound = SocketPath::new(path, false);
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    bound.keep();
    Ok(listener)
}
