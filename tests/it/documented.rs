//! The commands and output that docs/support.md shows are those of a run: a block that no run printed fails
//! its test, which prints what it must be.

use std::path::Path;

/// What comes before the output of a command, in the document and in transcripts.
const PROMPT: &str = "$ peerpanda-sso connection ";
/// A block whose last line is this shows only the beginning of an output.
const CUT: &str = "…";

/// Compares the console blocks of the document, from the heading `from` to the heading `to`, with a
/// transcript.
pub(crate) fn assert_documented(transcript: &str, from: &str, to: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/support.md");
    let document = std::fs::read_to_string(path).expect("docs/support.md");
    let (start, end) = (document.find(from), document.find(to));
    let section = &document[start.expect("a heading")..end.unwrap_or(document.len())];
    let runs: Vec<&str> = transcript.split(PROMPT).skip(1).collect();
    let blocks = section.split("```console\n").skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "no console block between {from} and {to}");
    for block in blocks {
        let block = block.strip_prefix(PROMPT).unwrap_or_else(|| panic!("not a command: {block}"));
        let shown = normalized(block);
        let is_shown = |run: &str| match shown.strip_suffix(CUT) {
            Some(beginning) => normalized(run).starts_with(beginning),
            None => normalized(run) == shown,
        };
        if !runs.iter().any(|run| is_shown(run)) {
            let command = |text: &str| normalized(text.lines().next().unwrap_or_default());
            let same = runs.iter().filter(|run| command(run) == command(block));
            let same: Vec<String> = same.map(|run| format!("{PROMPT}{run}")).collect();
            panic!(
                "docs/support.md shows what no run prints:\n{PROMPT}{block}\nit must be one of:\n{}",
                same.join("\n")
            );
        }
    }
}

/// Without what differs from run to run: ports, times, trace ids, fingerprints and durations, and so the
/// places at which lines are wrapped.
fn normalized(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_end = |c: char| !c.is_alphanumeric();
    let varies = |(at, word): (usize, &&str)| {
        let bare = word.trim_matches(is_end);
        let is_hex = bare.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(bare.len(), 8 | 32);
        let is_date = bare.len() >= 20 && bare.starts_with("20") && bare.ends_with('Z');
        let is_minute = bare.len() == 5 && bare.bytes().all(|b| b.is_ascii_digit() || b == b':');
        let is_count = words.get(at + 1).is_some_and(|next| next.trim_matches(is_end) == "ms");
        match () {
            () if is_hex || is_date || is_minute || is_count => word.replace(bare, "#"),
            () => match word.split_once("localhost:") {
                Some((before, after)) => {
                    let path = after.trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{before}localhost:#{path}")
                }
                None => (*word).to_owned(),
            },
        }
    };
    words.iter().enumerate().map(varies).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_differs_from_run_to_run_is_ignored() {
    let shown = "2026-11-25T18:17:45Z  X (http://localhost:41621/keys), 3022a7d9\n    12 ms, trace \
                 ecff43c4d3f7210a098964527bd0d860";
    let run = "2027-01-02T03:04:05Z X (http://localhost:9/keys), 5055c085 7 ms, trace\n \
               decc1a299c8758dc5e103949ff73e873";
    assert_eq!(normalized(shown), normalized(run));
    assert_ne!(normalized("HTTP 401, invalid_client"), normalized("HTTP 400, invalid_client"));
}
