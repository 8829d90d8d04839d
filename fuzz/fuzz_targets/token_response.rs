//! See `peerpanda_sso::fuzzing::token_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peerpanda_sso::fuzzing::token_response(bytes));
