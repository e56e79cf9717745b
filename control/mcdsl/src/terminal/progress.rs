//! Progress on standard error; nothing unless that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on standard error, if that is a terminal. Dropping it removes the bar.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Counts bytes; `total` may be unknown.
    #[must_use]
    pub fn of_bytes(what: &str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} [{bar:32}] {bytes}/{total_bytes} {eta}",
            None => "{msg} {spinner} {bytes}",
        };
        Self::with_template(what, total, template)
    }

    /// Counts things whose total is unknown.
    #[must_use]
    pub fn of_items(what: &str) -> Self {
        Self::with_template(what, None, "{msg} {spinner} {pos}")
    }

    fn with_template(what: &str, total: Option<u64>, template: &str) -> Self {
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        // The target draws nothing unless standard error is a terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_message(super::clean(what));
        Self(bar)
    }

    /// Sets how much is done.
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
    fn every_template_is_valid() {
        for total in [None, Some(7)] {
            let progress = Progress::of_bytes("packing", total);
            progress.set(3);
            assert_eq!(progress.0.position(), 3);
            assert_eq!(progress.0.length(), total);
        }
        Progress::of_items("reading").set(3);
    }
}
