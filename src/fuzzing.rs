//! What `fuzz/` calls: an entry per kind of input from outside. Built for the fuzzer and for the tests,
//! which try every seed.

pub use crate::oidc::fuzzing::{discovery, id_token, key_set, token_response, userinfo};
pub use crate::server::grpc::fuzzing::callback;

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Entry = (&'static str, fn(&[u8]));

    #[test]
    fn every_seed_of_the_fuzzer_passes() {
        let entries: [Entry; 6] = [
            ("callback", super::callback),
            ("discovery", super::discovery),
            ("id_token", super::id_token),
            ("key_set", super::key_set),
            ("token_response", super::token_response),
            ("userinfo", super::userinfo),
        ];
        for (name, entry) in entries {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
            let seeds: Vec<_> = std::fs::read_dir(&folder).expect("seeds").collect();
            assert!(!seeds.is_empty(), "{name} has seeds");
            for seed in seeds {
                entry(&std::fs::read(seed.expect("a seed").path()).expect("read"));
            }
        }
    }
}
