//! What every service stands on: each part is here because a second program needs it.
//!
//! - [`config`]: a TOML file and the environment become a typed configuration, or a problem with its place.
//! - [`db`]: an SQLite database that loses nothing acknowledged.
//! - [`log`] and [`prometheus`]: what a program says about itself.
//! - [`secret`]: what must not be shown.
//! - `web`, with the feature of that name: pages for people.
//! - [`chain()`]: an error in words.
//! - [`escape`]: texts from elsewhere, made safe for a terminal.
//! - [`challenges`]: what waits for a response, bounded in time and number.
//! - `archive`, with the feature of that name: a service's directory as one file.
//! - `ctl`, with the feature of that name: the frame of every operator's command line.
//! - `terminal`, with the feature of that name: prompts and progress.
//!
//! With the feature `service`, what a service speaks with:
//! - [`server`]: sockets, TLS, connections and their end; [`tls`]: certificates that change while it runs.
//! - [`http`]: the middleware of each request, and how it is read and answered.
//! - [`problem`]: what went wrong, in the one form for both.
//! - [`auth`]: the identity behind a token, from MCIAS.
//! - [`policy`]: who may do what, as rules that operators write.
//! - [`program`]: the `main` of a service: its commands, its configuration, its start and its end.
//! - [`clock`]: the time, to be handed on as a value.
//!
//! Left out: what a service decides. That is in the service's own pure core, which knows none of this.

#[cfg(feature = "archive")]
pub mod archive;
#[cfg(feature = "service")]
pub mod audit;
#[cfg(feature = "service")]
pub mod auth;
mod chain;
pub mod challenges;
#[cfg(any(feature = "service", feature = "ctl"))]
pub mod clock;
pub mod config;
#[cfg(feature = "service")]
pub mod context;
#[cfg(feature = "ctl")]
pub mod ctl;
pub mod db;
#[cfg(any(feature = "service", feature = "ctl"))]
mod draft;
pub mod escape;
mod file;
#[cfg(feature = "service")]
pub mod http;
pub mod identity;
pub mod log;
#[cfg(feature = "service")]
pub mod operation;
#[cfg(feature = "service")]
pub mod permit;
#[cfg(feature = "service")]
pub mod policy;
#[cfg(feature = "service")]
pub mod problem;
#[cfg(feature = "service")]
pub mod program;
pub mod prometheus;
#[cfg(feature = "service")]
mod quota;
pub mod secret;
#[cfg(feature = "service")]
pub mod server;
#[cfg(feature = "terminal")]
pub mod terminal;
#[cfg(feature = "service")]
pub mod tls;
#[cfg(feature = "web")]
pub mod web;

pub use chain::chain;
pub use secret::Secret;
