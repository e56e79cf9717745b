//! MCIAS, identity and access: the root of trust of every other service.
//!
//! - [`domain`]: what it decides, as plain functions.
//! - [`store`]: what it keeps, as SQL.
//! - [`app`]: what may be asked of it, whichever way it is asked.
//! - [`http`], [`grpc`] and [`web`]: the ways to ask.
//! - [`config`]: what it is told at its start.

pub mod app;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod store;
pub mod web;
