//! See `peerpanda_sso::fuzzing::userinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peerpanda_sso::fuzzing::userinfo(bytes));
