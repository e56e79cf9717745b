//! See [`mcias_fuzz::archive`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::archive::check(input));
