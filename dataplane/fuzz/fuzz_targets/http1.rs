//! See [`mc_fuzz::http1`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mc_fuzz::http1::check(input));
