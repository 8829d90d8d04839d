//! Who logged in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connection::Issuer;
use super::slug::Slug;
use super::stable_names;
use super::time::UnixSeconds;

/// A person at an account. (slug, issuer, subject) is the key; e-mail never is. Its serialised names are the claims of an
/// identity token, and API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The account.
    pub slug: Slug,
    /// Exactly as in the ID token.
    #[serde(rename = "idp_iss")]
    pub issuer: Issuer,
    /// `sub`: 1 to 255 ASCII characters.
    #[serde(rename = "idp_sub")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Not unique, may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// URL of a picture, not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// BCP 47.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Values of the mapped claim.
    pub groups: Vec<String>,
    /// `iat`, seconds since the Unix epoch.
    #[serde(rename = "idp_iat")]
    pub id_token_issue_time: UnixSeconds,
    /// `auth_time`, seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<UnixSeconds>,
    /// `acr`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// `amr`
    pub amr: Vec<String>,
    /// `sid`
    #[serde(rename = "sid", skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Every other claim.
    #[serde(rename = "idp_claims")]
    pub claims: Map<String, Value>,
    /// Where each field came from: `email` -> `id_token.email`.
    pub claim_sources: BTreeMap<Cow<'static, str>, String>,
}

/// What the source of an e-mail address says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EmailVerification {
    /// It is verified.
    Verified,
    /// It isn't, or something unintelligible was said.
    Unverified,
    /// Nothing was said.
    NotStated,
}

/// A claim without which nobody is logged in, by the name of the Identity's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityClaim {
    /// `email`
    Email,
    /// `given_name`
    GivenName,
    /// `family_name`
    FamilyName,
}

impl IdentityClaim {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Email, Self::GivenName, Self::FamilyName];

    /// The field's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::GivenName => "given_name",
            Self::FamilyName => "family_name",
        }
    }
}

stable_names!(IdentityClaim, name);
