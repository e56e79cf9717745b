//! MCIAS as it is shipped, over real sockets.

mod ctl;
mod pages;
mod revocation;
