//! How far something is, on standard error; nothing where that is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is drawn on standard error, where that is a terminal. It is gone when this is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Of bytes: `total` of them, or nobody knows how many.
    ///
    /// # Panics
    /// Never: its templates are sound.
    #[must_use]
    pub fn of_bytes(what: &str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} [{bar:32}] {bytes}/{total_bytes} {eta}",
            None => "{msg} {spinner} {bytes}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is sound");
        // The target hides itself where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_message(super::clean(what));
        Self(bar)
    }

    /// So much is done.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_can_be_drawn() {
        for total in [None, Some(7)] {
            let progress = Progress::of_bytes("packing", total);
            progress.set(3);
            assert_eq!(progress.0.position(), 3);
            assert_eq!(progress.0.length(), total);
        }
    }
}
