//! See [`mcias_fuzz::account_name`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::account_name::check(input));
