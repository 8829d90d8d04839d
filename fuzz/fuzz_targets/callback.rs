//! See `peerpanda_sso::fuzzing::callback`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peerpanda_sso::fuzzing::callback(bytes));
