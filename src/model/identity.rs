//! The identity of a person who logged in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connection::Issuer;
use super::slug::Slug;
use super::stable_names;
use super::time::UnixSeconds;

/// A person at an account. The key is (slug, issuer, subject), never the e-mail address. The serialized
/// names are the claims of an identity token and therefore part of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The account.
    pub slug: Slug,
    /// The issuer, exactly as in the ID token.
    #[serde(rename = "idp_iss")]
    pub issuer: Issuer,
    /// `sub`: 1 to 255 ASCII characters.
    #[serde(rename = "idp_sub")]
    pub subject: String,
    /// Exactly one e-mail address.
    pub email: String,
    /// What the source of `email` states about it.
    pub email_verification: EmailVerification,
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub family_name: String,
    /// Full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `preferred_username`: neither unique nor stable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// The URL of a picture; never fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// The language, a BCP 47 tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The values of the mapped claim.
    pub groups: Vec<String>,
    /// `iat`
    #[serde(rename = "idp_iat")]
    pub id_token_issue_time: UnixSeconds,
    /// `auth_time`
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
    /// All other claims.
    #[serde(rename = "idp_claims")]
    pub claims: Map<String, Value>,
    /// The source of each field: `email` -> `id_token.email`.
    pub claim_sources: BTreeMap<Cow<'static, str>, String>,
}

/// What the source of an e-mail address states about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EmailVerification {
    /// `email_verified` is true.
    Verified,
    /// `email_verified` is false, or is not a boolean.
    Unverified,
    /// There is no `email_verified`.
    NotStated,
}

/// A claim that every login needs, by the name of the Identity's field.
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
    /// Every required claim.
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
