//! See [`mcias_fuzz::browser`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::browser::check(input));
