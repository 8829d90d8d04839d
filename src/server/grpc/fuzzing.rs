//! The fuzzer's entry to what a caller sends.

use prost::Message;

use super::convert::Parsed;
use crate::login::fuzzing::admit;
use crate::model::login::{Callback, LoginRequest, UncheckedReturnTo};
use crate::model::return_to::ReturnRule;
use crate::pb;

/// Reads the bytes as a `CompleteLogin` and as a `BeginLogin` message; an accepted `return_to` must
/// lead to an allowed origin.
pub fn callback(bytes: &[u8]) {
    if let Ok(message) = pb::CompleteLoginRequest::decode(bytes) {
        match Callback::parse(message) {
            Ok(callback) => admit(&callback),
            Err(violations) => assert!(!violations.is_empty()),
        }
    }
    if let Ok(message) = pb::BeginLoginRequest::decode(bytes)
        && let Ok(request) = LoginRequest::parse(message)
        && let Some(UncheckedReturnTo { text, .. }) = request.return_to
    {
        let rule = ReturnRule::new(
            "https://ours.example".to_owned(),
            vec!["https://reports.ours.example".to_owned()],
        );
        if let Ok(return_to) = rule.check(&text) {
            let base = url::Url::parse("https://ours.example/app/").expect("a URL");
            let led_to = base.join(return_to.as_str()).expect("what was accepted is a URL");
            assert!(
                matches!(led_to.host_str(), Some("ours.example" | "reports.ours.example")),
                "{led_to}"
            );
        }
    }
}
