//! See [`mcias_fuzz::totp_code`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::totp_code::check(input));
