//! See [`mcias_fuzz::token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::token::check(input));
