//! A callback that arrives twice: browsers reload, go back, and send a request again when a connection
//! breaks. The answer of a completed login is kept for a short time, sealed under a key that only the same
//! state, code and browser binding give; the same callback gets it again. So a code is exchanged once, and
//! the person who finishes a login twice isn't refused.

use std::sync::Arc;

use aws_lc_rs::aead::LessSafeKey;

use super::Login;
use super::state::{Ticket, open, seal};
use crate::model::login::{AuthorizationCode, BrowserBinding};
use crate::model::slug::Slug;
use crate::store::PendingKey;
use crate::telemetry::call::within_current;
use crate::telemetry::{BackgroundTask, login_answered_again};

/// Where the answer of one completed login is kept.
#[derive(Clone)]
pub struct AnswerKeeper {
    pub(super) key: PendingKey,
    pub(super) seal: Arc<LessSafeKey>,
    slug: Slug,
    /// The connection's: a change of the connection ends the answers of before.
    revision: u64,
}

impl std::fmt::Debug for AnswerKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerKeeper([redacted])")
    }
}

impl Login {
    /// Where the answer to this callback is kept. `None`: it isn't, since it was sent without a browser
    /// binding or the operator has turned this off.
    pub(super) fn answer_keeper(
        &self,
        ticket: &Ticket,
        slug: &Slug,
        code: &AuthorizationCode,
        binding: Option<&BrowserBinding>,
        revision: u64,
    ) -> Option<AnswerKeeper> {
        let binding = binding.filter(|_| !self.policy.answer_ttl.is_zero())?;
        let (key, seal) = self.state_keys.answer_keys(ticket, code, binding);
        Some(AnswerKeeper { key, seal: Arc::new(seal), slug: slug.clone(), revision })
    }

    /// Keeps the encoded answer, in the background: no login waits for it or fails by it.
    pub fn keep_answer(&self, keeper: AnswerKeeper, answer: &[u8]) {
        let Ok(permit) = Arc::clone(&self.keeping).try_acquire_owned() else { return };
        if answer.len() > MAX_ANSWER {
            return;
        }
        let record = [&keeper.revision.to_be_bytes(), answer].concat();
        let value = seal(&keeper.seal, &keeper.slug, record);
        let (pending, ttl) = (Arc::clone(&self.pending), self.policy.answer_ttl);
        self.tasks.spawn(
            BackgroundTask::AnswerKeeping,
            within_current(async move {
                if let Err(error) = pending.keep_answer(&keeper.key, &value, ttl).await {
                    tracing::debug!(%error, "failed to keep a login's answer");
                }
                drop(permit);
            }),
        );
    }

    /// The answer that the same callback got before.
    pub(super) async fn kept_answer(&self, keeper: &AnswerKeeper) -> Option<Vec<u8>> {
        // A store that fails here refuses the callback as one that was used.
        let value = self.pending.kept_answer(&keeper.key).await.ok().flatten()?;
        let record = open(&keeper.seal, &keeper.slug, value)?;
        let (revision, answer) = record.split_first_chunk()?;
        if u64::from_be_bytes(*revision) != keeper.revision {
            return None;
        }
        login_answered_again();
        Some(answer.to_vec())
    }
}

/// Bytes: an identity, and an ID token with many groups. Larger answers aren't kept.
const MAX_ANSWER: usize = 64 * 1024;
/// Answers that are being written at the same time; further ones aren't kept.
pub(super) const MAX_KEEPING: usize = 256;
