//! The frame of every command line that operates a service ("a ctl").
//!
//! A ctl is a [`Program`], its own commands, and one call of [`main`]. The frame adds what all ctls share: global
//! options, contexts (several sites), login and logout at MCIAS, tokens, tables, JSON, paging, exit codes, completion,
//! man pages. Data goes to standard output; errors, questions and progress go to standard error or the terminal.
//!
//! In the `after_help` of a command, `{ctl}` stands for the program's name: examples can be run as they are written.
//!
//! Names are positional, everything else is an option. Verbs: `list`, `show`, `create` and `delete` (things), `add` and
//! `remove` (members of a list), `update`. A name that does not exist is an error, also in a filter.
//!
//! Left out: full-screen views.

mod args;
pub mod audit;
mod context;
mod description;
mod error;
mod handle;
mod login;
mod output;
pub mod policy;
mod program;
mod run;
mod screen;
mod settings;
mod table;
mod time;
mod token_file;

pub use description::Program;
pub use error::{Error, Exit};
pub use handle::{Ctl, new_password, secret};
pub use output::{Output, Printer, list, table};
pub use program::{command, main};
pub use run::{Failure, run};
pub use table::Column;
pub use time::{Moment, duration, parse_lifetime, parse_millis, when, when_or_dash};
pub use token_file::create as create_token_file;

/// Words of a list in a cell; `none` where there are none.
#[must_use]
pub fn join_or(words: &[String], none: &str) -> String {
    if words.is_empty() { none.to_owned() } else { words.join(",") }
}
