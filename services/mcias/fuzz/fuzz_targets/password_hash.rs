//! See [`mcias_fuzz::password_hash`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::password_hash::check(input));
