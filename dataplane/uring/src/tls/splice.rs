//! Bytes from a socket into a TLS connection whose keys the kernel has, without coming through user space: where they arrived,
//! there they are encrypted.

use std::io;

use super::Tls;
use crate::pipe::Pipe;
use crate::runtime::yield_now;
use crate::shared::{Failure, Shared};
use crate::socket::Socket;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// So many bytes were passed on: all that there were, or as many as were asked for.
    Moved(u64),
    /// The other side sends no more.
    End,
    /// There is no pipe to be had.
    NoPipe,
}

/// Bytes passed on in one go before others have their turn.
const TURN: u64 = 1024 * 1024;

impl Tls {
    /// Passes on what `from` has, at most `most` bytes; `moved` is told of each piece that the kernel has taken. To be called
    /// when everything of before is sent ([`Tls::flush`]), and the kernel has the keys ([`Tls::is_in_kernel`]).
    ///
    /// # Errors
    /// Which side failed: this one is the client. Some may have been passed on.
    pub async fn splice(
        &self,
        shared: &Shared,
        from: &Socket,
        most: u64,
        moved: impl FnMut(usize),
    ) -> Result<Spliced, Failure> {
        let Ok(mut pipe) = shared.take_pipe() else { return Ok(Spliced::NoPipe) };
        let spliced = self.through(&mut pipe, from, most, moved).await;
        shared.give_pipe(pipe);
        spliced
    }

    async fn through(
        &self,
        pipe: &mut Pipe,
        from: &Socket,
        most: u64,
        mut moved: impl FnMut(usize),
    ) -> Result<Spliced, Failure> {
        let (mut total, mut turn) = (0, 0);
        while total < most {
            let piece = usize::try_from((most - total).min(TURN)).unwrap_or(usize::MAX);
            match pipe.fill(from, piece) {
                Ok(0) if total == 0 => return Ok(Spliced::End),
                Ok(0) => break,
                Ok(filled) => {
                    total += filled as u64;
                    turn += filled as u64;
                    self.state.borrow_mut().spend(&self.socket, filled).map_err(Failure::Client)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Failure::Backend(error)),
            }
            while pipe.filled() > 0 {
                match pipe.drain(&self.socket) {
                    Ok(drained) => moved(drained),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.socket.writable().await.map_err(Failure::Client)?;
                    }
                    Err(error) => return Err(Failure::Client(error)),
                }
            }
            if turn >= TURN {
                yield_now().await;
                turn = 0;
            }
        }
        Ok(Spliced::Moved(total))
    }
}
