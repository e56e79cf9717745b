//! MCAT, the login policy tester: it shows people what MCIAS's login policy decides for them, by which rule and why, and admins what a draft
//! would change. It stores nothing; MCIAS decides.
//!
//! - [`app`]: what may be asked of it, whichever way it is asked.
//! - [`web`]: its page. REST and gRPC follow from the `.proto` and the use cases.
//! - [`config`]: the configuration file; `service`: MCAT as a program.

pub mod app;
pub mod config;
mod service;
pub mod web;
