//! Folds login attempts before they are written: logins at one account that are refused alike within an hour
//! become one row. Pure.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use crate::model::attempt::{Attempt, hour_of};
use crate::model::slug::Slug;
use crate::model::time::UnixMillis;
use crate::store::{AccountAttempt, TRACES_KEPT};

/// Attempts of one batch that become one row, or are added to one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fold<'a> {
    pub(super) slug: &'a Slug,
    /// What the row's attempts have in common; `None`: the row is of one login.
    pub(super) key: Option<String>,
    pub(super) latest: &'a Attempt,
    pub(super) count: u64,
    pub(super) first_time: UnixMillis,
    pub(super) first_trace_id: &'a str,
    /// Of the others, the latest [`TRACES_KEPT`].
    pub(super) other_trace_ids: Vec<&'a str>,
}

/// Folds the attempts. The result is in the order of the latest of each.
pub(super) fn folded(attempts: &[AccountAttempt]) -> Vec<Fold<'_>> {
    let mut folds: Vec<(usize, Fold<'_>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, AccountAttempt { slug, attempt }) in attempts.iter().enumerate() {
        let key = fold_key(slug, attempt);
        let place = key.as_ref().and_then(|key| places.get(key)).copied();
        if let Some((latest_at, fold)) = place.and_then(|place| folds.get_mut(place)) {
            (*latest_at, fold.latest) = (at, attempt);
            fold.count += 1;
            fold.other_trace_ids.push(&attempt.trace_id);
            continue;
        }
        if let Some(key) = &key {
            places.insert(key.clone(), folds.len());
        }
        let fold = Fold {
            slug,
            key,
            latest: attempt,
            count: 1,
            first_time: attempt.time,
            first_trace_id: &attempt.trace_id,
            other_trace_ids: Vec::new(),
        };
        folds.push((at, fold));
    }
    folds.sort_by_key(|(latest_at, _)| *latest_at);
    let mut folds: Vec<_> = folds.into_iter().map(|(_, fold)| fold).collect();
    for fold in &mut folds {
        let too_many = fold.other_trace_ids.len().saturating_sub(TRACES_KEPT as usize);
        fold.other_trace_ids.drain(..too_many);
    }
    folds
}

/// A digest of what makes support act otherwise. `None`: the login was completed.
fn fold_key(slug: &Slug, attempt: &Attempt) -> Option<String> {
    let reason = attempt.reason?;
    let words = attempt.idp_error_description.as_deref().map(without_ids);
    let common = json!([
        slug,
        hour_of(attempt.time),
        attempt.stage,
        reason,
        attempt.cause,
        attempt.document,
        attempt.idp_error,
        words,
        attempt.claims_present,
        attempt.is_test,
    ]);
    let digest = digest(&SHA256, common.to_string().as_bytes());
    Some(hex::encode(&digest.as_ref()[..KEY_BYTES]))
}

/// The words of an IdP's text that are the same at every login: without ids, times and numbers, as Entra ID
/// writes them into each description.
fn without_ids(text: &str) -> String {
    let is_of_id = |c: char| c.is_ascii_hexdigit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z');
    let is_id = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        word.contains(|c: char| c.is_ascii_digit()) && word.chars().all(is_of_id)
    };
    text.split_whitespace().filter(|word| !is_id(word)).collect::<Vec<_>>().join(" ")
}

/// So many that no two groups of attempts ever have the same digest.
const KEY_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::LoginStage;
    use crate::model::cause::Cause;

    fn refused(time: u64, trace_id: &str) -> AccountAttempt {
        let attempt = Attempt {
            time: UnixMillis(time),
            stage: Some(LoginStage::Complete),
            reason: Some(Cause::AccessDenied.reason()),
            cause: Some(Cause::AccessDenied),
            trace_id: trace_id.to_owned(),
            idp_error: Some("access_denied".to_owned()),
            idp_error_description: Some("AADSTS50105: not assigned".to_owned()),
            document: None,
            detail: Some(format!("detail {time}")),
            claims_present: None,
            issuer: None,
            phases: Vec::new(),
            is_test: false,
        };
        AccountAttempt { slug: Slug::parse("acme").expect("a slug"), attempt }
    }

    fn changed(change: impl FnOnce(&mut Attempt)) -> AccountAttempt {
        let mut attempt = refused(1, "t");
        change(&mut attempt.attempt);
        attempt
    }

    fn key(attempt: &AccountAttempt) -> Option<String> {
        fold_key(&attempt.slug, &attempt.attempt)
    }

    #[test]
    fn what_support_acts_on_tells_refusals_apart() {
        let first = key(&refused(1, "t"));
        assert_eq!(key(&refused(3_599_999, "u")), first, "time, trace id and detail don't count");
        let other = AccountAttempt { slug: Slug::parse("b").expect("a slug"), ..refused(1, "t") };
        for other in [
            other,
            refused(3_600_000, "t"),
            changed(|it| it.stage = Some(LoginStage::Begin)),
            changed(|it| it.reason = Some(Cause::Dns.reason())),
            changed(|it| it.cause = None),
            changed(|it| it.document = Some("keys".to_owned())),
            changed(|it| it.idp_error = None),
            changed(|it| it.idp_error_description = Some("AADSTS53003: a policy".to_owned())),
            changed(|it| it.claims_present = Some(Vec::new())),
            changed(|it| it.is_test = true),
        ] {
            assert_ne!(key(&other), first, "{other:?}");
        }
        assert_eq!(key(&changed(|it| it.reason = None)), None, "a completed login stays alone");
    }

    #[test]
    fn the_ids_in_an_idps_words_are_passed_over() {
        let of_login = |trace: &str, time: &str| {
            format!(
                "AADSTS50105: The user '{trace}' is not assigned. Trace ID: {trace} Correlation ID: \
                 {trace} Timestamp: 2026-11-25 {time}"
            )
        };
        let one = without_ids(&of_login("6f1ee4f5-9a2d-4c35-9a6f-59a9ee1e0300", "09:10:11Z"));
        let two = without_ids(&of_login("7a1ee4f5-9a2d-4c35-9a6f-59a9ee1e0300", "09:12:11Z"));
        assert_eq!(one, two);
        let kept = "AADSTS50105: The user is not assigned. Trace ID: Correlation ID: Timestamp:";
        assert_eq!(one, kept);
    }

    #[test]
    fn a_batch_is_folded_in_the_order_of_the_latest() {
        let other = changed(|it| it.cause = None);
        let completed = changed(|it| it.reason = None);
        let batch = [refused(1, "a"), other, completed, refused(2, "b"), refused(3, "c")];
        let folds = folded(&batch);
        let shown = folds.iter().map(|fold| (fold.count, fold.first_time.0, fold.latest.time.0));
        assert_eq!(shown.collect::<Vec<_>>(), [(1, 1, 1), (1, 1, 1), (3, 1, 3)]);
        let fold = folds.last().expect("a fold");
        assert_eq!((fold.first_trace_id, &*fold.other_trace_ids), ("a", ["b", "c"].as_slice()));
        let flood: Vec<_> = (0..500).map(|number| refused(number, &number.to_string())).collect();
        let [fold] = &*folded(&flood) else { panic!("one") };
        assert_eq!((fold.count, fold.other_trace_ids.len()), (500, 200));
        assert_eq!(fold.other_trace_ids.last(), Some(&"499"));
    }
}
