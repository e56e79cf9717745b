//! See [`mc_fuzz::proxy_protocol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mc_fuzz::proxy_protocol::check(input));
