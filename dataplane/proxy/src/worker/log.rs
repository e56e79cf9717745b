//! A worker's part of the access log.

use std::cell::RefCell;

use crate::access_log::{LogSink, Record, Request};

/// Log bytes that are handed over at once: each time another thread is woken.
const LOG_BATCH: usize = 128 * 1024;

/// A worker's part of the access log.
pub(super) struct Log {
    sink: LogSink,
    lines: RefCell<Vec<u8>>,
}

impl Log {
    pub(super) fn new(sink: LogSink) -> Self {
        Self { sink, lines: RefCell::default() }
    }

    /// Writes the line of a connection.
    pub(super) fn write(&self, record: &Record<'_>) {
        let full = {
            let mut lines = self.lines.borrow_mut();
            self.sink.write(record, &mut lines);
            lines.len() >= LOG_BATCH
        };
        if full {
            self.flush();
        }
    }

    /// Writes the line of a request.
    pub(super) fn request(&self, record: &Request<'_>) {
        let full = {
            let mut lines = self.lines.borrow_mut();
            self.sink.write_request(record, &mut lines);
            lines.len() >= LOG_BATCH
        };
        if full {
            self.flush();
        }
    }

    /// Hands what was written to the thread that has the file.
    pub(super) fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            *lines = self.sink.submit(std::mem::take(&mut *lines));
        }
    }
}
