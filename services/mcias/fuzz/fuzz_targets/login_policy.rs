//! See [`mcias_fuzz::login_policy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcias_fuzz::login_policy::check(input));
