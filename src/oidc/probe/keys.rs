//! The published keys: is there one for the algorithms that ID tokens are signed with? Fetched and
//! read by the code that a login uses.

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::oidc::keys::{MAX_KEYS_SIZE, fetch};

impl Run<'_, '_> {
    pub(super) async fn keys(&mut self, known: &Known) {
        let names: Vec<&str> = known.algs.iter().map(|alg| alg.name()).collect();
        let expected = format!("a key for one of {} is published", names.join(", "));
        let verdict = match &known.jwks {
            None => Verdict::fail("the IdP has no usable jwks_uri"),
            Some(url) => {
                self.requests_left -= 1;
                match fetch(url, self.probe.http).await {
                    Err(error) => self.failure(error.cause(), &error.to_string()),
                    Ok((keys, _)) => {
                        let has_key = |alg: &&_| keys.candidates(**alg, None).next().is_some();
                        let usable = known.algs.iter().filter(has_key);
                        let usable: Vec<&str> = usable.map(|alg| alg.name()).collect();
                        if usable.is_empty() {
                            let found = "none of its keys is for one of these algorithms";
                            self.failure(Cause::NoUsableKey, found)
                        } else {
                            let found = format!("there are keys for {}", usable.join(", "));
                            match keys.left_out() {
                                0 => Verdict::pass(found),
                                count => Verdict::warn(format!(
                                    "{found}; the last {count} keys are not read, since all \
                                     together have more than {MAX_KEYS_SIZE} bytes"
                                ))
                                .for_idp_admin("publish only the keys that sign ID tokens"),
                            }
                        }
                    }
                }
            }
        };
        self.report(CheckId::JwksKeys, expected, verdict);
    }
}
