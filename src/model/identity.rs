//! Who logged in.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::connection::Issuer;
use super::slug::Slug;

/// A person at an account. (slug, issuer, subject) is the key; e-mail never is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The account.
    pub slug: Slug,
    /// Exactly as in the ID token.
    pub issuer: Issuer,
    /// `sub`: 1 to 255 ASCII characters.
    pub subject: String,
    /// One address.
    pub email: String,
    /// What the source of `email` said of it.
    pub email_verification: EmailVerification,
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub family_name: String,
    /// Full name.
    pub name: Option<String>,
    /// Not unique, may change.
    pub preferred_username: Option<String>,
    /// URL of a picture, not fetched.
    pub picture: Option<String>,
    /// BCP 47.
    pub locale: Option<String>,
    /// Values of the mapped claim.
    pub groups: Vec<String>,
    /// `iat`, seconds since the Unix epoch.
    pub id_token_issue_time: u64,
    /// `auth_time`, seconds since the Unix epoch.
    pub auth_time: Option<u64>,
    /// `acr`
    pub acr: Option<String>,
    /// `amr`
    pub amr: Vec<String>,
    /// `sid`
    pub session_id: Option<String>,
    /// Every other claim.
    pub claims: Map<String, Value>,
    /// Where each field came from: `email` -> `id_token.email`.
    pub claim_sources: BTreeMap<&'static str, String>,
}

/// What the source of an e-mail address says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailVerification {
    /// It is verified.
    Verified,
    /// It isn't, or something unintelligible was said.
    Unverified,
    /// Nothing was said.
    NotStated,
}
