//! Prompts, progress and texts on a terminal.
//!
//! Text from a server never reaches the terminal raw: control characters in it are escaped.

mod progress;
mod prompt;
mod text;

pub use crate::escape::{clean, clean_lines};
pub use progress::Progress;
pub use prompt::{confirm, prompt_new_secret, prompt_secret, read_secret_stdin};
pub use text::{bytes, or_dash};
