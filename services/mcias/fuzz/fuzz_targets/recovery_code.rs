//! See [`mcias_fuzz::recovery_code`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::recovery_code::check(input));
