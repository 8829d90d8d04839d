//! Authenticates and authorizes callers: programs that are known by client certificate or bearer
//! token and have roles. Called by `admission` for every service but health and reflection, which are
//! open to all. A token never appears in an error or a log line.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::cause::Cause;
use crate::model::text::quotable;
use crate::server::peer::Peer;
use crate::server::reload::{Contents, FileError, Watched};
use crate::telemetry::call;

/// Which service a caller may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// LoginService.
    Login,
    /// IdentityService.
    Identity,
    /// ConnectionService.
    Admin,
}

impl Role {
    /// The name in the callers file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Identity => "identity",
            Self::Admin => "admin",
        }
    }
}

/// The callers file as it was read last.
pub type WatchedCallers = Watched<Callers>;

/// The programs that may call.
#[derive(Debug, Default)]
pub struct Callers {
    callers: Vec<Caller>,
    /// How many callers have each role.
    by_role: HashMap<Role, usize>,
    /// SHA-256 of each token, and the index of its caller.
    tokens: Vec<([u8; 32], usize)>,
    /// Each subject alternative name of a certificate, and the index of its caller.
    names: HashMap<String, usize>,
}

#[derive(Debug)]
struct Caller {
    name: Arc<str>,
    roles: HashSet<Role>,
}

/// The callers file: TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallersFile {
    #[serde(default)]
    caller: Vec<CallerEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerEntry {
    name: String,
    roles: Vec<Role>,
    #[serde(default)]
    token_sha256: Vec<String>,
    #[serde(default)]
    san: Vec<String>,
}

/// In log lines and metrics.
const WHAT: &str = "callers file";

impl Callers {
    /// Reads the callers file. It is reloaded when it changes. One without callers shuts everybody out,
    /// which is refused at the start, so that a rollout with a wrong file stops.
    ///
    /// # Errors
    /// It can't be read, or see [`CallersError`].
    pub fn open(file: PathBuf) -> Result<WatchedCallers, FileError> {
        let files = vec![file];
        let watched = Watched::open(
            WHAT,
            files.clone(),
            |contents: &[Contents]| -> Result<Self, CallersError> {
                let text = std::str::from_utf8(contents.first().map_or(&[][..], |bytes| bytes))
                    .map_err(|_| CallersError::NotUtf8)?;
                let callers = Self::parse(text)?;
                if callers.callers.is_empty() {
                    tracing::error!("the callers file has no [[caller]] entry: nobody may call");
                }
                Ok(callers)
            },
        )?;
        if watched.current().callers.is_empty() {
            let problem = Box::new(CallersError::Empty);
            return Err(FileError::Invalid { what: WHAT, files, problem });
        }
        Ok(watched)
    }

    /// Whether a caller is identified by its certificate.
    #[must_use]
    pub fn need_certificates(&self) -> bool {
        !self.names.is_empty()
    }

    fn parse(text: &str) -> Result<Self, CallersError> {
        // toml's Display quotes the line, which can hold a token that was pasted there by mistake.
        let file: CallersFile = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => {
                let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
                CallersError::Toml { line, problem: error.message().to_owned() }
            }
            None => CallersError::Toml { line: 1, problem: error.message().to_owned() },
        })?;
        let mut callers = Self::default();
        for entry in file.caller {
            let name = entry.name.trim();
            let invalid = |problem| CallersError::Caller { name: name.to_owned(), problem };
            if name.is_empty()
                || name.len() > 64
                || callers.callers.iter().any(|known| &*known.name == name)
            {
                return Err(invalid("needs a unique name of 1 to 64 bytes"));
            }
            if entry.roles.is_empty() {
                return Err(invalid("needs one of the roles login, identity, admin"));
            }
            if entry.token_sha256.is_empty() && entry.san.is_empty() {
                return Err(invalid("needs token_sha256 or san"));
            }
            let index = callers.callers.len();
            for text in &entry.token_sha256 {
                let mut hash = [0; 32];
                let read = hex::decode_to_slice(text.trim(), &mut hash);
                read.map_err(|_| invalid("has a token_sha256 that is not 64 hex digits"))?;
                if EXAMPLE_TOKENS.iter().any(|token| hash_of(token).as_ref() == hash) {
                    return Err(invalid(
                        "has the token_sha256 of a word that anybody can guess: run `peerpanda-sso \
                         tokens generate`",
                    ));
                }
                if callers.tokens.iter().any(|(known, _)| *known == hash) {
                    return Err(invalid("has a token_sha256 that occurs twice"));
                }
                callers.tokens.push((hash, index));
            }
            for san in entry.san {
                if san.trim().is_empty() || callers.names.insert(san, index).is_some() {
                    return Err(invalid("has a san that is empty or occurs twice"));
                }
            }
            let roles: HashSet<Role> = entry.roles.into_iter().collect();
            for role in &roles {
                *callers.by_role.entry(*role).or_default() += 1;
            }
            callers.callers.push(Caller { name: name.into(), roles });
        }
        Ok(callers)
    }

    fn by_token(&self, token: &str) -> Option<&Caller> {
        let hash = hash_of(token);
        // All are compared, so that the time taken reveals nothing.
        let mut found = None;
        for (known, index) in &self.tokens {
            if constant_time::verify_slices_are_equal(known, hash.as_ref()).is_ok() {
                found = Some(*index);
            }
        }
        self.callers.get(found?)
    }

    /// `names`: the certificate's subject alternative names.
    fn by_certificate(&self, names: &[String]) -> Option<&Caller> {
        self.callers.get(*names.iter().find_map(|name| self.names.get(name))?)
    }
}

/// Why a callers file can't be used. Holds nothing of its credentials.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// Not text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not TOML, or an unknown field or role.
    #[error("line {line}: {problem}")]
    Toml {
        /// Number of the line.
        line: usize,
        /// The parser's message.
        problem: String,
    },
    /// An entry is incomplete, malformed or conflicts with another.
    #[error("caller {name:?} {problem}")]
    Caller {
        /// The entry's name.
        name: String,
        /// What to fix.
        problem: &'static str,
    },
    /// The file has no entry: every call would be refused.
    #[error("no [[caller]] entry")]
    Empty,
}

fn hash_of(token: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, token.as_bytes())
}

/// Tokens of examples, and words that are tried first. An empty one can be sent as well.
const EXAMPLE_TOKENS: [&str; 24] = [
    "",
    "1234",
    "12345678",
    "TOKEN",
    "abc",
    "admin",
    "api-key",
    "bearer",
    "changeme",
    "default",
    "demo",
    "dev",
    "example",
    "foo",
    "hello",
    "passw0rd",
    "password",
    "peerpanda",
    "s3cret",
    "secret",
    "sso",
    "test",
    "test-token",
    "token",
];

/// A new bearer token of 256 bits, and its SHA-256 in hex as the callers file has it.
#[must_use]
pub fn new_token(entropy: &dyn Entropy) -> (Zeroizing<String>, String) {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(bytes.as_mut_slice());
    let token = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    let hash = hex::encode(hash_of(&token));
    (token, hash)
}

/// Who calls.
pub(super) struct Authenticated {
    /// The calling program's name in the callers file.
    pub(super) name: Arc<str>,
    /// The person who uses it, if the program names one in the `sso-operator` metadata.
    pub(super) operator: Option<String>,
    /// Whether other callers have the role, too.
    pub(super) shares_role: bool,
}

/// Lets callers with one role call a service.
pub(in crate::server) struct Authorizer {
    callers: Option<Arc<WatchedCallers>>,
    /// The name of a caller where everybody may call.
    anybody: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl Authorizer {
    /// `callers`: `None` lets everybody call.
    pub(in crate::server) fn new(
        callers: Option<Arc<WatchedCallers>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { callers, anybody: "anybody".into(), clock }
    }

    /// Finds out who calls a service that this role is for.
    pub(super) fn authenticate(
        &self,
        role: Role,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Authenticated, Box<Refusal>> {
        let operator = operator(headers);
        let Some(callers) = self.callers.as_ref().map(|callers| callers.current()) else {
            return Ok(Authenticated {
                name: Arc::clone(&self.anybody),
                operator,
                shares_role: false,
            });
        };
        let token = match headers.get("authorization").map(HeaderValue::to_str) {
            None => None,
            Some(Ok(value))
                if value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) =>
            {
                Some(value[7..].trim())
            }
            Some(_) => {
                return Err(Refusal::boxed(
                    Cause::AuthorizationMalformed,
                    "the authorization header is not a bearer token",
                ));
            }
        };
        let caller = match token {
            // A wrong token is refused even if the certificate is known.
            Some(token) => callers
                .by_token(token)
                .ok_or_else(|| Refusal::boxed(Cause::BearerTokenUnknown, "unknown bearer token")),
            None => self.by_certificate(&callers, peer),
        }?;
        if !caller.roles.contains(&role) {
            return Err(Refusal::boxed(
                Cause::RoleMissing,
                format!(
                    "the caller {:?} lacks the role {:?} that this service needs",
                    caller.name,
                    role.name()
                ),
            ));
        }
        let shares_role = callers.by_role.get(&role).is_some_and(|count| *count > 1);
        Ok(Authenticated { name: Arc::clone(&caller.name), operator, shares_role })
    }

    fn by_certificate<'a>(
        &self,
        callers: &'a Callers,
        peer: &Peer,
    ) -> Result<&'a Caller, Box<Refusal>> {
        let certificate = peer.certificate();
        // A connection can outlive the certificate that it was opened with.
        if certificate.as_ref().is_some_and(|found| found.has_expired(self.clock.unix_seconds())) {
            let text = "the client certificate has expired since the connection was opened";
            return Err(Refusal::boxed(Cause::ClientCertificateExpired, text));
        }
        let caller = certificate.and_then(|certificate| callers.by_certificate(&certificate.names));
        caller.ok_or_else(|| {
            let text = "neither a bearer token nor a known client certificate was sent";
            Refusal::boxed(Cause::CredentialsMissing, text)
        })
    }
}

/// Who a change is recorded for: the calling program and, if it names one, the person who uses it.
pub(in crate::server) fn actor() -> String {
    call::current(|call| match (call.caller(), call.operator()) {
        (Some(caller), Some(operator)) => format!("{caller} ({operator})"),
        (Some(caller), None) => caller.to_owned(),
        (None, _) => "anybody".to_owned(),
    })
    .unwrap_or_default()
}

/// The `sso-operator` metadata: UTF-8, percent-encoded where it isn't ASCII.
fn operator(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("sso-operator")?.as_bytes();
    let decoded = percent_decode(value).decode_utf8_lossy();
    Some(quotable(decoded.trim())).filter(|operator| !operator.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_accepted_and_its_hash_is_not() {
        let (token, hash) = new_token(&crate::entropy::SystemEntropy);
        let file = format!(
            "[[caller]]\nname = \"web\"\nroles = [\"login\"]\ntoken_sha256 = [\"{hash}\"]\n"
        );
        let callers = Callers::parse(&file).expect("read");
        assert!(callers.by_token(&token).is_some_and(|caller| &*caller.name == "web"));
        assert!(callers.by_token(&hash).is_none());
    }

    #[test]
    fn the_example_of_the_readme_lets_nobody_in_as_it_stands() {
        let readme = include_str!("../../../README.md");
        let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let error = Callers::parse(example.expect("an example")).expect_err("a placeholder");
        assert!(error.to_string().contains("64 hex digits"), "{error}");
    }

    #[test]
    fn a_callers_file_is_read_or_the_problem_is_named() {
        let hash = "ab".repeat(32);
        let good = format!(
            "[[caller]]\nname = \"web\"\nroles = [\"login\"]\ntoken_sha256 = [\"{hash}\"]\nsan = [\"web.example\"]\n"
        );
        let callers = Callers::parse(&good).expect("read");
        assert!(callers.need_certificates() && callers.tokens.len() == 1);
        for (bad, expected) in [
            (
                format!(
                    "[[caller]]\nname = \"a\"\nroles = [\"login\"]\ntoken_sha256 = [\"{}\"]\n",
                    hex::encode(hash_of("test"))
                ),
                "a word that anybody can guess",
            ),
            ("[[caller]]\nname = \"a\"\nroles = [\"root\"]\n".to_owned(), "line 3"),
            (
                "[[caller]]\nname = \"a\"\nroles = [\"login\"]\n".to_owned(),
                "needs token_sha256 or san",
            ),
            (
                "[[caller]]\nname = \"a\"\nroles = []\nsan = [\"x\"]\n".to_owned(),
                "needs one of the roles",
            ),
            (
                "[[caller]]\nname = \"a\"\nroles = [\"login\"]\ntoken_sha256 = [\"s3cret\"]\n"
                    .to_owned(),
                "64 hex digits",
            ),
            (
                "[[caller]]\nname = \"a\"\nroles = [\"login\"]\ntoken = \"s3cret\"\n".to_owned(),
                "unknown field",
            ),
            (format!("{good}{}", good.replace("web\"", "other\"")), "occurs twice"),
            (format!("{good}{good}"), "a unique name"),
        ] {
            let error = Callers::parse(&bad).expect_err(&bad).to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }
}
