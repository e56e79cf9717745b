//! Short answers and echoes for thousands of connections on one thread.

use std::io::{self, ErrorKind, Read as _, Write as _};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{Mode, record_len};
use crate::content::answer;

/// Serves all connections of these listeners on one thread.
pub(super) fn spawn(listeners: Vec<(std::net::TcpListener, Mode)>) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut ours = Vec::new();
    for (index, (listener, mode)) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
        ours.push((listener, mode));
    }
    let mut server = Server { poll, listeners: ours, connections: Vec::new(), free: Vec::new() };
    std::thread::spawn(move || server.run());
    Ok(())
}

struct Server {
    poll: Poll,
    listeners: Vec<(TcpListener, Mode)>,
    /// The connection with token `listeners.len() + n` is at `n`.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Server {
    fn run(&mut self) {
        let mut events = Events::with_capacity(512);
        let mut scratch = vec![0; 64 * 1024];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.expect("epoll_wait with a valid descriptor only fails when interrupted"),
            }
            for event in &events {
                match event.token().0.checked_sub(self.listeners.len()) {
                    None => self.accept(event.token().0),
                    Some(index) => self.serve(index, event.is_read_closed(), &mut scratch),
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        // Errors are those of a client that left already, or of a full descriptor table: the load counts the
        // connections that get no answer.
        while let Ok((mut stream, _)) = self.listeners[listener].0.accept() {
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(self.listeners.len() + index);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = stream
                .set_nodelay(true)
                .and_then(|()| self.poll.registry().register(&mut stream, token, interest));
            match registered {
                Ok(()) => self.connections[index] = Some(Connection::new(stream, self.listeners[listener].1)),
                Err(_) => self.free.push(index),
            }
        }
    }

    fn serve(&mut self, index: usize, ending: bool, scratch: &mut [u8]) {
        // An event may be about a connection that ended earlier in the same batch.
        let Some(connection) = &mut self.connections[index] else { return };
        match connection.advance(ending, scratch) {
            Ok(true) => {}
            Ok(false) | Err(_) => {
                self.connections[index] = None;
                self.free.push(index);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    mode: Mode,
    /// The ClientHello so far; `None` after it was answered.
    hello: Option<Vec<u8>>,
    /// What the socket did not take yet.
    pending: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream, mode: Mode) -> Self {
        Self { stream, mode, hello: Some(Vec::new()), pending: Vec::new() }
    }

    /// Goes as far as the socket lets it; `false` when the connection is over. `ending`: the kernel says that
    /// an end of file waits behind the data.
    fn advance(&mut self, ending: bool, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            if !self.pending.is_empty() {
                let pending = std::mem::take(&mut self.pending);
                self.write(&pending)?;
                if !self.pending.is_empty() {
                    return Ok(true);
                }
            }
            let size = match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            self.take(&scratch[..size])?;
            // A short read emptied the socket: the next arrival is a new event.
            if size < scratch.len() && !ending && self.pending.is_empty() {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(hello) = &mut self.hello else { return self.reply(bytes) };
        hello.extend_from_slice(bytes);
        let Some(header) = hello.first_chunk() else { return Ok(()) };
        let len = record_len(*header);
        if hello.len() < len {
            return Ok(());
        }
        let hello = self.hello.take().expect("it was there above");
        if self.mode == Mode::Answer {
            return self.write(&answer(&hello[..len]));
        }
        self.reply(&hello[len..])
    }

    /// What follows the ClientHello: echoed, or left unread by a backend that only answers.
    fn reply(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.mode == Mode::Echo && !bytes.is_empty() { self.write(bytes) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(size) => sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending = bytes[sent..].to_vec();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
