//! What a person may have meant, and what to type next: similar slugs, the check that a refused change
//! needs, and what a discovery URL was taken for.

use std::time::Duration;

use tokio::time::timeout;

use super::super::client::{Admin, ClientArgs};
use super::super::layout::print_text;
use super::super::{Failure, Refusal};
use crate::model::draft::discovery;
use crate::pb;

/// Adds to a refusal what helps with this account. Silent about what it can't find out in a moment.
pub(super) async fn help(client: &ClientArgs, refusal: Refusal, slug: &str) -> Failure {
    let help = match (refusal.reason.as_str(), refusal.cause.as_str()) {
        ("CONNECTION_NOT_FOUND", _) => similar(client, slug).await,
        (_, "change_unproven") => check_command(std::env::args()),
        _ => None,
    };
    let message = match help {
        Some(help) => format!("{}; {help}", refusal.message),
        None => refusal.message.clone(),
    };
    Failure::Refused(Box::new(Refusal { message, ..refusal }))
}

async fn similar(client: &ClientArgs, slug: &str) -> Option<String> {
    let mut admin = client.admin().await.ok()?;
    let mut scored: Vec<_> = slugs(&mut admin, PATIENCE)
        .await
        .into_iter()
        .map(|known| (strsim::jaro_winkler(slug, &known), known))
        .filter(|(score, _)| *score > MIN_LIKENESS)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let similar: Vec<_> = scored.into_iter().take(MAX_SIMILAR).map(|(_, known)| known).collect();
    (!similar.is_empty()).then(|| format!("did you mean {}?", similar.join(" or ")))
}

/// The slugs of all connections, or of those that could be listed in time.
async fn slugs(admin: &mut Admin, patience: Duration) -> Vec<String> {
    let mut slugs = Vec::new();
    let list = async {
        let mut page_token = String::new();
        loop {
            let request = pb::ListConnectionsRequest { page_size: 1000, page_token };
            let Ok(page) = admin.list_connections(request).await else { return };
            let page = page.into_inner();
            slugs.extend(page.connections.into_iter().map(|connection| connection.slug));
            if page.next_page_token.is_empty() {
                return;
            }
            page_token = page.next_page_token;
        }
    };
    // Too late: what was listed so far.
    let _ = timeout(patience, list).await;
    slugs
}

/// For completions: the slugs that begin so, or none where the service doesn't answer at once.
pub(in crate::cli) async fn matching_slugs(client: &ClientArgs, start: &str) -> Vec<String> {
    let find = async {
        let mut admin = client.admin().await.ok()?;
        Some(slugs(&mut admin, PATIENCE / 2).await)
    };
    let mut found = timeout(PATIENCE, find).await.ok().flatten().unwrap_or_default();
    found.retain(|slug| slug.starts_with(start));
    found
}

/// The `check` with the flags of the `update` that was typed.
fn check_command(typed: impl Iterator<Item = String>) -> Option<String> {
    let mut words = Vec::new();
    let mut typed = typed.skip(1).peekable();
    while let Some(word) = typed.next() {
        let (flag, value) = word.split_once('=').unwrap_or((word.as_str(), ""));
        match flag {
            "--force" => {}
            // A check is the same with any name and in any state.
            "--display-name" | "--state" => {
                if value.is_empty() {
                    typed.next();
                }
            }
            "update" if !words.iter().any(|word| word == "check") => words.push("check".to_owned()),
            "restore" => return None,
            _ => words.push(quoted(&word)),
        }
    }
    Some(format!("to check it: peerpanda-sso {}", words.join(" ")))
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Says what `entered` was taken for, where it isn't the stored discovery URL itself.
pub(super) fn note_discovery(
    entered: &pb::Connection,
    stored: Option<&pb::Connection>,
) -> Result<(), Failure> {
    let url = stored.map(|stored| stored.discovery_url.as_str()).unwrap_or_default();
    match discovery::read(&entered.discovery_url) {
        Ok(found) if found.form != discovery::Form::Document && !url.is_empty() => print_text(
            0,
            &format!(
                "note: took {} for {}: discovery_url is {url}",
                entered.discovery_url.trim(),
                found.form
            ),
        ),
        _ => Ok(()),
    }
}

/// A person waits for it, at the end of a command that was refused or in the middle of a line.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_SIMILAR: usize = 3;
/// Of 1.0, for slugs that are equal.
const MIN_LIKENESS: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_of_a_change_has_its_flags() {
        for (typed, expected) in [
            ("p connection update acme --scopes openid", "connection check acme --scopes openid"),
            (
                "p connection update update --force --state testing --display-name=X --issuer=",
                "connection check update --issuer=",
            ),
            (
                "p connection update acme --issuer https://a/?b",
                "check acme --issuer 'https://a/?b'",
            ),
        ] {
            let command = check_command(typed.split(' ').map(str::to_owned)).expect("a command");
            assert!(command.ends_with(expected), "{typed}: {command}");
        }
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let restore = "p connection restore acme 3".split(' ').map(str::to_owned);
        assert_eq!(check_command(restore), None);
    }
}
