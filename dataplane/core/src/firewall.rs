//! Compiles the firewall's rules and judges addresses with the kernel's own verdict code.

/// Rules in the form in which they are looked up.
#[derive(Debug, Default)]
pub struct Compiled {}
