//! MCIAS, identity and access: the root of trust of every other service.
//!
//! So far what it decides ([`domain`]); nothing serves it yet.

pub mod domain;
