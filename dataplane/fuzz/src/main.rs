//! The program that fuzzes: feeds libFuzzer's inputs to the target that `MC_FUZZ_TARGET` names.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mc_fuzz::chosen()(input));
