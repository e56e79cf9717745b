//! What every operator's command line shares: how data is printed, how secrets are asked for, how progress is shown.
//!
//! Data goes to standard output, everything else to standard error or the terminal itself, so that output can be piped
//! while questions are asked. What a server sent never reaches the terminal raw: a name with an escape sequence in it is
//! printed as text.
//!
//! Left out: what the commands are, and full-screen views.

mod output;
mod program;
mod progress;
mod prompt;
mod words;

pub use output::{Output, Printer, list, table};
pub use program::{Failure, run};
pub use progress::Progress;
pub use prompt::{confirm, prompt_line, prompt_new_secret, prompt_secret, read_secret_stdin};
pub use words::{alarm, bytes, clean, clean_lines, duration, or_dash};
