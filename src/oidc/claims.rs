//! Turns verified claims into an Identity, by the connection's mapping. Pure. The ID token goes
//! before UserInfo, which adds what is missing and never a protocol claim.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::Host;

use super::json::numeric_date;
use super::verify::VerifiedClaims;
use crate::model::cause::Cause;
use crate::model::connection::{ClaimMapping, ConnectionSettings};
use crate::model::identity::{EmailVerification, Identity, IdentityClaim};
use crate::model::redact::Redactor;
use crate::model::slug::Slug;
use crate::model::text::{is_hidden, quotable};

/// Why verified claims don't make an Identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Neither source has these required claims with a value that can be used.
    #[error("{}", missing_text(.0))]
    Missing(Vec<MissingClaim>),
    /// A claim isn't one of the connection's required values.
    #[error("{claim} is {found}, expected one of {}", .allowed.join(", "))]
    NotAllowed {
        /// The claim's name.
        claim: String,
        /// Its value, shortened.
        found: String,
        /// The values that the connection lists.
        allowed: Vec<String>,
    },
    /// The e-mail's domain isn't allowed.
    #[error("the e-mail address is in the domain {0:?}, which allowed_email_domains does not list")]
    EmailDomainNotAllowed(String),
    /// The connection requires a verified e-mail address.
    #[error(
        "the IdP does not state that the e-mail address is verified, and require_verified_email is set"
    )]
    EmailNotVerified,
}

/// A required claim that neither the ID token nor UserInfo has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingClaim {
    /// Which field of the Identity it is for.
    pub claim: IdentityClaim,
    /// The names under which the connection looks it up.
    pub names: Vec<String>,
    /// The one of them that is present, with a value that can't be used.
    pub unusable: Option<String>,
}

fn missing_text(missing: &[MissingClaim]) -> String {
    let absent = missing.iter().filter(|claim| claim.unusable.is_none());
    let absent: Vec<String> = absent.map(|claim| claim.names.join(" or ")).collect();
    let absent = absent.join(", ");
    let absent =
        (!absent.is_empty()).then(|| format!("neither the ID token nor UserInfo has {absent}"));
    let unusable = missing.iter().filter_map(|claim| {
        let name = claim.unusable.as_ref()?;
        let rule = match claim.claim {
            IdentityClaim::Email => "a single e-mail address",
            IdentityClaim::GivenName | IdentityClaim::FamilyName => "a text that is not empty",
        };
        Some(format!("{name} is present but is not {rule}"))
    });
    absent.into_iter().chain(unusable).collect::<Vec<_>>().join("; ")
}

impl ClaimsError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Missing(missing) if missing.iter().all(|claim| claim.unusable.is_some()) => {
                Cause::ClaimUnusable
            }
            Self::Missing(_) => Cause::ClaimMissing,
            Self::NotAllowed { .. } => Cause::ClaimNotAllowed,
            Self::EmailDomainNotAllowed(_) => Cause::EmailDomain,
            Self::EmailNotVerified => Cause::EmailUnverified,
        }
    }

    /// Removes secrets from the values of claims.
    pub fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::NotAllowed { found, .. } => redactor.apply(found),
            Self::EmailDomainNotAllowed(domain) => redactor.apply(domain),
            Self::Missing(_) | Self::EmailNotVerified => {}
        }
    }
}

/// What UserInfo is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserInfoNeed {
    /// The ID token has everything.
    Nothing,
    /// Only the mapped groups are missing, without which a person can log in.
    GroupsOnly,
    /// A required claim or a claim of `required_claims` is missing.
    Required,
}

/// What is missing from the ID token.
#[must_use]
pub fn userinfo_need(id_token: &VerifiedClaims, settings: &ConnectionSettings) -> UserInfoNeed {
    let mapping = &settings.claim_mapping;
    let sources = Sources { id_token: &id_token.all, userinfo: None };
    let is_missing = |name: &String| !id_token.all.contains_key(name);
    if sources.email(mapping).is_none()
        || sources.text(&mapping.given_name).is_none()
        || sources.text(&mapping.family_name).is_none()
        || settings.required_claims.iter().any(|claim| is_missing(&claim.name))
    {
        UserInfoNeed::Required
    } else if mapping.groups.as_ref().is_some_and(is_missing) {
        UserInfoNeed::GroupsOnly
    } else {
        UserInfoNeed::Nothing
    }
}

/// Builds the Identity.
///
/// # Errors
/// See [`ClaimsError`].
pub fn identity(
    slug: &Slug,
    id_token: VerifiedClaims,
    userinfo: Option<&Map<String, Value>>,
    settings: &ConnectionSettings,
) -> Result<Identity, ClaimsError> {
    let VerifiedClaims { issuer, subject, issued_at, all } = id_token;
    let sources = Sources { id_token: &all, userinfo };
    let mapping = &settings.claim_mapping;
    sources.check_required(settings)?;
    let (email, given_name, family_name) = match (
        sources.email(mapping),
        sources.text(&mapping.given_name),
        sources.text(&mapping.family_name),
    ) {
        (Some(email), Some(given_name), Some(family_name)) => (email, given_name, family_name),
        (email, given_name, family_name) => {
            let wanted = [
                (email, IdentityClaim::Email, &mapping.email),
                (given_name, IdentityClaim::GivenName, &mapping.given_name),
                (family_name, IdentityClaim::FamilyName, &mapping.family_name),
            ];
            let missing = wanted.into_iter().filter(|(found, ..)| found.is_none());
            let missing = missing.map(|(_, claim, names)| {
                let unusable = sources.present(names).map(str::to_owned);
                MissingClaim { claim, names: names.clone(), unusable }
            });
            return Err(ClaimsError::Missing(missing.collect()));
        }
    };
    let email_verification = email.verification();
    check_email(email.text, email_verification, settings)?;

    let mut claim_sources = BTreeMap::from([
        (Cow::Borrowed("email"), email.provenance()),
        (Cow::Borrowed("given_name"), given_name.provenance()),
        (Cow::Borrowed("family_name"), family_name.provenance()),
    ]);
    let mut optional = |field: &'static str| {
        let found = sources.text_named(field)?;
        claim_sources.insert(field.into(), found.provenance());
        Some(found.text.to_owned())
    };
    let (name, preferred_username) = (optional("name"), optional("preferred_username"));
    let (picture, locale) = (optional("picture"), optional("locale"));
    let groups = sources.groups(mapping, &mut claim_sources);
    // Only the ID token describes the session.
    let session_text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Identity {
        slug: slug.clone(),
        issuer,
        subject,
        email: email.text.to_owned(),
        email_verification,
        given_name: given_name.text.to_owned(),
        family_name: family_name.text.to_owned(),
        name,
        preferred_username,
        picture,
        locale,
        groups,
        id_token_issue_time: issued_at,
        auth_time: all.get("auth_time").and_then(numeric_date),
        acr: session_text("acr"),
        amr: all.get("amr").map(texts).unwrap_or_default(),
        session_id: session_text("sid"),
        claims: sources.others(mapping),
        claim_sources,
    })
}

/// A claim's value and where it was found.
#[derive(Clone, Copy)]
struct Found<'a> {
    text: &'a str,
    source: &'static str,
    name: &'a str,
    claims: &'a Map<String, Value>,
}

impl Found<'_> {
    fn provenance(&self) -> String {
        format!("{}.{}", self.source, self.name)
    }

    /// What the same source states about the claim `email`. It states nothing about another claim
    /// that is mapped to the e-mail address.
    fn verification(&self) -> EmailVerification {
        if self.name != "email" {
            return EmailVerification::NotStated;
        }
        if let Some(verified) = self.claims.get("email_verified") {
            let is_true = verified == &Value::Bool(true) || verified.as_str() == Some("true");
            return if is_true {
                EmailVerification::Verified
            } else {
                EmailVerification::Unverified
            };
        }
        // Entra's optional claim "e-mail domain owner verified": a boolean, a number or a string.
        match self.claims.get("xms_edov") {
            None => EmailVerification::NotStated,
            Some(Value::Bool(true)) => EmailVerification::Verified,
            Some(Value::Number(number)) if number.as_u64() == Some(1) => {
                EmailVerification::Verified
            }
            Some(Value::String(text)) if text == "1" || text == "true" => {
                EmailVerification::Verified
            }
            Some(_) => EmailVerification::Unverified,
        }
    }
}

struct Sources<'a> {
    id_token: &'a Map<String, Value>,
    userinfo: Option<&'a Map<String, Value>>,
}

impl<'a> Sources<'a> {
    fn in_order(&self) -> impl Iterator<Item = (&'static str, &'a Map<String, Value>)> {
        [Some(("id_token", self.id_token)), self.userinfo.map(|claims| ("userinfo", claims))]
            .into_iter()
            .flatten()
    }

    fn find(&self, names: &'a [String], fits: impl Fn(&str) -> bool) -> Option<Found<'a>> {
        self.in_order().find_map(|(source, claims)| {
            names.iter().find_map(|name| {
                let text = claims.get(name)?.as_str().filter(|text| fits(text))?;
                Some(Found { text, source, name, claims })
            })
        })
    }

    fn text(&self, names: &'a [String]) -> Option<Found<'a>> {
        self.find(names, |text| !text.trim().is_empty())
    }

    /// White space around an address is an artifact of directories, and not part of it.
    fn email(&self, mapping: &'a ClaimMapping) -> Option<Found<'a>> {
        let found = self.find(&mapping.email, |text| email_domain(text.trim()).is_some())?;
        Some(Found { text: found.text.trim(), ..found })
    }

    /// The first of these claims that a source has, whatever its value.
    fn present(&self, names: &'a [String]) -> Option<&'a str> {
        let is_present = |name: &&String| {
            self.in_order().any(|(_, claims)| claims.get(*name).is_some_and(|it| !it.is_null()))
        };
        names.iter().find(is_present).map(String::as_str)
    }

    fn text_named(&self, name: &'a str) -> Option<Found<'a>> {
        self.in_order().find_map(|(source, claims)| {
            let text = claims.get(name)?.as_str().filter(|text| !text.trim().is_empty())?;
            Some(Found { text, source, name, claims })
        })
    }

    fn groups(
        &self,
        mapping: &ClaimMapping,
        claim_sources: &mut BTreeMap<Cow<'static, str>, String>,
    ) -> Vec<String> {
        let Some(name) = &mapping.groups else { return Vec::new() };
        let found = self.in_order().find_map(|(source, claims)| Some((source, claims.get(name)?)));
        if let Some((source, value)) = found {
            claim_sources.insert("groups".into(), format!("{source}.{name}"));
            return texts(value);
        }
        // Entra leaves out more than 200 groups and marks it. That must not be read as "no groups".
        let is_overage = self.id_token.get("hasgroups").is_some()
            || self.id_token.get("_claim_names").is_some_and(|names| names.get(name).is_some());
        if is_overage {
            claim_sources
                .insert("groups".into(), "overage: the IdP left the groups out".to_owned());
        }
        Vec::new()
    }

    fn check_required(&self, settings: &ConnectionSettings) -> Result<(), ClaimsError> {
        for required in &settings.required_claims {
            let found = self.in_order().find_map(|(_, claims)| claims.get(&required.name));
            let is_listed = |value: &Value| {
                required.values.iter().any(|allowed| scalar(value).as_ref() == Some(allowed))
            };
            let is_allowed = match found {
                Some(Value::Array(items)) => items.iter().any(is_listed),
                Some(value) => is_listed(value),
                None => false,
            };
            if !is_allowed {
                let found = found
                    .map_or_else(|| "missing".to_owned(), |value| quotable(&value.to_string()));
                return Err(ClaimsError::NotAllowed {
                    claim: required.name.clone(),
                    found,
                    allowed: required.values.clone(),
                });
            }
        }
        Ok(())
    }

    /// The claims that are neither protocol claims nor fields of the Identity.
    fn others(&self, mapping: &ClaimMapping) -> Map<String, Value> {
        let is_field = |name: &String| {
            IDENTITY_CLAIMS.contains(&name.as_str())
                || mapping.groups.as_ref() == Some(name)
                || [&mapping.email, &mapping.given_name, &mapping.family_name]
                    .iter()
                    .any(|names| names.contains(name))
        };
        let mut others = Map::new();
        for (_, claims) in self.in_order() {
            for (name, value) in claims {
                if !PROTOCOL_CLAIMS.contains(&name.as_str())
                    && !is_field(name)
                    && !others.contains_key(name)
                {
                    others.insert(name.clone(), value.clone());
                }
            }
        }
        others
    }
}

fn check_email(
    email: &str,
    verification: EmailVerification,
    settings: &ConnectionSettings,
) -> Result<(), ClaimsError> {
    let domain = email_domain(email).unwrap_or_default();
    if !settings.allowed_email_domains.is_empty()
        && !settings.allowed_email_domains.contains(&domain)
    {
        return Err(ClaimsError::EmailDomainNotAllowed(domain));
    }
    if settings.require_verified_email && verification != EmailVerification::Verified {
        return Err(ClaimsError::EmailNotVerified);
    }
    Ok(())
}

/// The domain in ASCII lower case, if `text` is exactly one e-mail address.
fn email_domain(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let is_plain = |c: char| {
        !is_hidden(c)
            && !c.is_whitespace()
            && !matches!(c, '@' | ',' | ';' | ':' | '<' | '>' | '(' | ')' | '"' | '\\')
    };
    let fits = text.len() <= 320
        && !local.is_empty()
        && local.chars().all(is_plain)
        && domain.chars().all(is_plain);
    // A guest's user principal name at Entra is not a mailbox:
    // "ada_gmail.com#EXT#@contoso.onmicrosoft.com".
    if !fits
        || local.to_ascii_uppercase().contains("#EXT#")
        || domain.starts_with('.')
        || domain.ends_with('.')
    {
        return None;
    }
    match Host::parse(domain).ok()? {
        Host::Domain(host) => Some(host.to_ascii_lowercase()),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Claims about the token and the session, not about the person. Only those of the ID token count,
/// and none is passed on as another claim.
const PROTOCOL_CLAIMS: [&str; 17] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "nonce",
    "azp",
    "at_hash",
    "c_hash",
    "s_hash",
    "auth_time",
    "acr",
    "amr",
    "sid",
    "events",
];
/// Claims that are fields of the Identity under their own names.
const IDENTITY_CLAIMS: [&str; 4] = ["name", "preferred_username", "picture", "locale"];

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// An accepted text has one @, a host name as its domain, and no separator of addresses.
        #[test]
        fn an_accepted_address_is_exactly_one(text in "[a-z@.,;<> #EXT\"()\\\\\u{e9}\u{200b}-]{0,24}") {
            if let Some(domain) = email_domain(&text) {
                proptest::prop_assert_eq!(text.matches('@').count(), 1);
                proptest::prop_assert!(!domain.is_empty() && domain.is_ascii() && !text.contains([',', ';', '<', '>', ' ']));
            }
        }
    }

    #[test]
    fn an_email_is_exactly_one_address() {
        for (good, domain) in [
            ("ada@example.com", "example.com"),
            ("Ada.L+x@EXAMPLE.com", "example.com"),
            ("a@bücher.de", "xn--bcher-kva.de"),
        ] {
            assert_eq!(email_domain(good).as_deref(), Some(domain), "{good}");
        }
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a@b@c",
            "a@x.com,b@y.com",
            "Ada <a@x.com>",
            "a b@x.com",
            "a@x.com\n",
            "a\u{200b}da@x.com",
            "a\u{202e}da@x.com",
            "a\u{e0041}da@x.com",
            "ada@x\u{ad}y.com",
            "+442071234567",
            "ada_gmail.com#EXT#@contoso.onmicrosoft.com",
            "a@.com",
            "a@x.com.",
            "a@127.0.0.1",
            "a@[::1]",
            "\"a\"@x.com",
        ] {
            assert_eq!(email_domain(bad), None, "{bad:?}");
        }
    }
}
