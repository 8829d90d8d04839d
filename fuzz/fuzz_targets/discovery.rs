//! See `peerpanda_sso::fuzzing::discovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peerpanda_sso::fuzzing::discovery(bytes));
