//! What every service stands on: each part is here because a second program needs it.
//!
//! - [`config`]: a TOML file and the environment become a typed configuration, or a problem with its place.
//! - [`db`]: an SQLite database that loses nothing acknowledged.
//! - [`log`] and [`prometheus`]: what a program says about itself.
//! - [`secret`]: what must not be shown.
//! - [`chain()`]: an error in words.
//! - `archive`, with the feature of that name: a service's directory as one file.
//! - `terminal`, with the feature of that name: what command lines share.
//!
//! Left out: what a service decides. That is in the service's own pure core, which knows none of this.

#[cfg(feature = "archive")]
pub mod archive;
mod chain;
pub mod config;
pub mod db;
pub mod log;
pub mod prometheus;
pub mod secret;
#[cfg(feature = "terminal")]
pub mod terminal;

pub use chain::chain;
pub use secret::Secret;
