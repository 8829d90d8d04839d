//! The published keys: is there one for the algorithms that ID tokens are signed with? Fetched and
//! read by the code that a login uses.

use super::{Known, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::oidc::error::{Document, ProviderError};
use crate::oidc::keys::{KeySet, MAX_KEYS_SIZE, fetch};

const ID: CheckId = CheckId::JwksKeys;

impl Run<'_, '_> {
    pub(super) async fn keys(&mut self, known: &Known) {
        // Without an algorithm or a jwks_uri, that is the finding.
        let (Some(url), [_, ..]) = (&known.jwks, known.algs.as_slice()) else { return };
        let names: Vec<&str> = known.algs.iter().map(|alg| alg.name()).collect();
        let expected = format!("a key for one of {} is published", names.join(", "));
        let verdict = match self.take(url) {
            Err(why) => self.no_answer(&why, Document::KeySet),
            Ok(()) => match fetch(url, self.probe.http).await {
                Err(error) => {
                    if let ProviderError::Call { error, .. } = &error {
                        self.note_failure(ID, url, error);
                    }
                    self.failure(error.cause(), &error.to_string())
                }
                Ok((keys, _)) => self.judge_keys(known, &keys),
            },
        };
        self.report(ID, expected, verdict);
    }

    fn judge_keys(&self, known: &Known, keys: &KeySet) -> Verdict {
        let has_key = |alg: &&_| keys.candidates(**alg, None).next().is_some();
        let usable = known.algs.iter().filter(has_key);
        let usable: Vec<&str> = usable.map(|alg| alg.name()).collect();
        if usable.is_empty() {
            let found = "none of its keys is for one of these algorithms";
            return self.failure(Cause::NoUsableKey, found);
        }
        let found = format!("there are keys for {}", usable.join(", "));
        match keys.left_out() {
            0 => Verdict::pass(found),
            count => Verdict::warn(format!(
                "{found}; the last {count} keys are not read, since all together have more than \
                 {MAX_KEYS_SIZE} bytes"
            ))
            .for_idp_admin("publish only the keys that sign ID tokens"),
        }
    }
}
