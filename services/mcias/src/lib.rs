//! MCIAS, identity and access: the root of trust of every other service.
//!
//! - [`domain`]: what it decides, as plain functions.
//! - [`store`]: what it keeps, as SQL.
//! - [`app`]: what may be asked of it, whichever way it is asked.
//! - [`web`]: its pages. REST and gRPC follow from the `.proto` and the use cases.
//! - [`config`]: the configuration file; `service`: MCIAS as a program.

pub mod app;
pub mod config;
pub mod domain;
mod service;
pub mod store;
pub mod web;
