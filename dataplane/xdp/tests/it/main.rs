//! The firewall in the kernel, as it is shipped: loaded, run on frames, attached to interfaces of namespaces.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;
mod frames;
mod older;
mod oracle;
mod program;
