//! See [`mc_fuzz::admin_validation`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mc_fuzz::admin_validation::check(input));
