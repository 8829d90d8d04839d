//! See `peerpanda_sso::fuzzing::id_token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peerpanda_sso::fuzzing::id_token(bytes));
