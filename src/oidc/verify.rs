//! Every check of an ID token, numbered as in OIDC Core 3.1.3.7, and of the other JWTs that an IdP
//! signs. Pure: keys, time and expectations are arguments. Must stay the only place that decides
//! whether a token is good.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::{IdTokenError, Problem};
use super::json;
use super::keys::{KeySet, VerificationKey, hash_of};
use crate::model::cause::Cause;
use crate::model::connection::{Issuer, TENANT_PLACEHOLDER};
use crate::model::login::{Nonce, RawIdToken};
use crate::model::signing_alg::SigningAlg;
use crate::model::text::quotable;
use crate::model::time::UnixSeconds;

/// Whose tokens are accepted.
#[derive(Clone, Debug)]
pub(super) enum IssuerPolicy {
    /// This issuer's, compared exactly.
    Exact(Issuer),
    /// Entra's multi-tenant template: `iss` is the template with the token's `tid`, which is
    /// listed.
    Tenants(Issuer, Vec<String>),
}

/// What the ID token of one login must state.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a IssuerPolicy,
    pub(super) client_id: &'a str,
    pub(super) additional_audiences: &'a [String],
    pub(super) algs: &'a [SigningAlg],
    pub(super) nonce: &'a Nonce,
    /// As sent in the authorization request.
    pub(super) max_age: Option<Duration>,
    /// Of the same token response.
    pub(super) access_token: &'a str,
    pub(super) now: UnixSeconds,
}

/// The claims of an ID token that passed every check.
pub struct VerifiedClaims {
    pub(super) issuer: Issuer,
    pub(super) subject: String,
    pub(super) issued_at: UnixSeconds,
    pub(super) all: Map<String, Value>,
}

/// Claims are personal data, so they are left out.
impl fmt::Debug for VerifiedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedClaims").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Verifies an ID token completely.
pub(super) fn id_token(
    token: &RawIdToken,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<VerifiedClaims, IdTokenError> {
    let jws = Jws::parse(token.expose(), expected.algs, &["jwt", "jose"])?;
    // (6), (7), (8): the signature first, so that nothing below reads unauthenticated claims.
    let key = jws.verified_by(keys)?;
    let claims = Claims(jws.payload()?);
    // (1) is decryption: Jws::parse refuses encrypted tokens.
    // (2) iss
    let issuer = claims.issuer(expected.issuer, key)?;
    // (3), (4), (5) aud, azp
    claims.audience(expected.client_id, expected.additional_audiences)?;
    // (9) exp, with RFC 7519 4.1.5 nbf
    let now = expected.now;
    if now >= claims.date("exp")?.after(SKEW) {
        return Err(invalid(Cause::Expired, "the ID token has expired (exp)"));
    }
    if claims.optional_date("nbf")?.is_some_and(|nbf| nbf > now.after(SKEW)) {
        return Err(invalid(Cause::NotYetValid, "the ID token is not valid yet (nbf)"));
    }
    // (10) iat
    let issued_at = claims.date("iat")?;
    if issued_at > now.after(SKEW) {
        return Err(invalid(Cause::IssuedInFuture, "the ID token was issued in the future (iat)"));
    }
    if now > issued_at.after(MAX_TOKEN_AGE + SKEW) {
        return Err(invalid(
            Cause::IssuedTooLongAgo,
            "the ID token was issued more than 10 minutes ago (iat)",
        ));
    }
    // (11) nonce
    claims.nonce(expected.nonce)?;
    // (13) auth_time; (12) acr isn't checked: `acr_values` requests a voluntary claim.
    claims.auth_time(expected.max_age, now)?;
    // 3.1.3.8 at_hash
    claims.at_hash(jws.alg, expected.access_token)?;
    // The same key signs logout tokens and other security events (Back-Channel Logout 2.4).
    if claims.0.contains_key("events") {
        let text = "the token is a security event or logout token (events), not an ID token";
        return Err(invalid(Cause::SecurityEvent, text));
    }
    let subject = claims.subject()?;
    Ok(VerifiedClaims { issuer, subject, issued_at, all: claims.0 })
}

/// Verifies a signed UserInfo response (OIDC Core 5.3.2): `iss` and `aud` are those of this IdP and
/// client, and `exp`, if present, is in the future.
pub(super) fn signed_userinfo(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<Map<String, Value>, IdTokenError> {
    let jws = Jws::parse(token, expected.algs, &["jwt", "jose"])?;
    let key = jws.verified_by(keys)?;
    let claims = Claims(jws.payload()?);
    claims.issuer_of_userinfo(expected.issuer, key)?;
    claims.audience(expected.client_id, expected.additional_audiences)?;
    if claims.optional_date("exp")?.is_some_and(|exp| expected.now >= exp.after(SKEW)) {
        return Err(invalid(Cause::Expired, "the response has expired (exp)"));
    }
    Ok(claims.0)
}

/// Whose an `id_token_hint` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintOwner {
    /// This issuer's, for this client.
    Ours,
    /// Another issuer's or client's, such as the one that the connection had before a change.
    Foreign,
    /// It is not a JWT.
    Nobody,
}

/// Whose ID token this is, which may have expired long ago. For the `id_token_hint` of a logout, whose
/// signature the IdP verifies.
pub(super) fn owner_of_hint(token: &str, issuer: &IssuerPolicy, client_id: &str) -> HintOwner {
    let parts: Vec<&str> = token.split('.').take(4).collect();
    let payload = match parts.as_slice() {
        [_, payload, _] if token.len() <= MAX_TOKEN => BASE64_URL_SAFE_NO_PAD.decode(payload).ok(),
        _ => None,
    };
    let Some(claims) = payload.and_then(|bytes| json::parse_object(&bytes).ok()).map(Claims) else {
        return HintOwner::Nobody;
    };
    let is_ours = claims.audiences().is_ok_and(|audiences| audiences.contains(&client_id))
        && claims.allowed_issuer(issuer).is_ok();
    if is_ours { HintOwner::Ours } else { HintOwner::Foreign }
}

/// A JWS in compact serialization (RFC 7515 7.1), split, with its header read.
struct Jws<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
    alg: SigningAlg,
    kid: Option<String>,
}

impl<'a> Jws<'a> {
    fn parse(token: &'a str, algs: &[SigningAlg], types: &[&str]) -> Result<Self, IdTokenError> {
        if token.len() > MAX_TOKEN {
            let text = format!("the token has more than {MAX_TOKEN} bytes");
            return Err(invalid(Cause::TooLarge, text));
        }
        let parts: Vec<&str> = token.split('.').take(6).collect();
        let [header, payload, signature] = match parts.as_slice() {
            [header, payload, signature] => [*header, *payload, *signature],
            [_, _, _, _, _] => {
                let text = "the token is encrypted (JWE), which is not supported: have the IdP \
                            sign it only";
                return Err(invalid(Cause::Encrypted, text));
            }
            _ => return Err(malformed("the token is not a JWT")),
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| malformed("the token's header is not base64url"))?;
        let header = json::parse_object(&bytes)
            .map_err(|detail| malformed(format!("the token's header: {detail}")))?;
        if header.contains_key("crit") {
            let text = "the token's header requires an extension (crit)";
            return Err(invalid(Cause::CriticalExtension, text));
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if types.contains(&typ.to_ascii_lowercase().as_str()) => {}
            Some(Value::String(typ)) => {
                let text = format!("the token is of another type (typ {:?})", quotable(typ));
                return Err(invalid(Cause::TokenType, text));
            }
            Some(_) => return Err(invalid(Cause::TokenType, "the token's typ is not a string")),
        }
        let kid = match header.get("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("the token's kid is not a string")),
        };
        let alg = signing_alg(&header, algs)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| {
            invalid(Cause::SignatureMalformed, "the token's signature is not base64url")
        })?;
        let signed = &token[..token.rfind('.').unwrap_or_default()];
        Ok(Self { signed, payload, signature, alg, kid })
    }

    fn verified_by<'k>(&self, keys: &'k KeySet) -> Result<&'k VerificationKey, IdTokenError> {
        let mut was_tried = false;
        for key in keys.candidates(self.alg, self.kid.as_deref()) {
            was_tried = true;
            if key.verifies(self.alg, self.signed.as_bytes(), &self.signature) {
                return Ok(key);
            }
        }
        let alg = self.alg.name();
        if was_tried {
            let text = format!("the {alg} signature is not by a key that the IdP publishes");
            return Err(invalid(Cause::SignatureMismatch, text));
        }
        let text = match self.kid.as_deref().map(quotable) {
            Some(kid) => format!("the IdP publishes no {alg} key with the token's kid {kid:?}"),
            None => format!("the IdP publishes no {alg} key"),
        };
        let text = match keys.left_out() {
            0 => text,
            count => format!("{text}; {count} of its keys are not read, since it has too many"),
        };
        Err(invalid(Cause::UnknownKey, text))
    }

    fn payload(&self) -> Result<Map<String, Value>, IdTokenError> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(self.payload)
            .map_err(|_| malformed("the token's payload is not base64url"))?;
        json::parse_object(&bytes)
            .map_err(|detail| malformed(format!("the token's payload: {detail}")))
    }
}

/// (7) alg: one of those allowed; `none` and MACs never are (RFC 8725 3.1, 3.2).
fn signing_alg(
    header: &Map<String, Value>,
    algs: &[SigningAlg],
) -> Result<SigningAlg, IdTokenError> {
    let Some(Value::String(name)) = header.get("alg") else {
        return Err(invalid(Cause::AlgMissing, "the token's header names no algorithm (alg)"));
    };
    let (cause, text) = match SigningAlg::parse(name) {
        Some(alg) if algs.contains(&alg) => return Ok(alg),
        _ if name.eq_ignore_ascii_case("none") => {
            (Cause::AlgNone, "the token is not signed (alg none)".to_owned())
        }
        _ if name.starts_with("HS") => {
            let text = format!(
                "the token is signed with the client secret ({}), which is not accepted: switch \
                 the client to RS256",
                quotable(name)
            );
            (Cause::AlgHmac, text)
        }
        _ => {
            let allowed: Vec<_> = algs.iter().map(|alg| alg.name()).collect();
            let (name, allowed) = (quotable(name), allowed.join(", "));
            let text = format!("the token is signed with {name:?}; accepted here: {allowed}");
            (Cause::AlgNotAllowed, text)
        }
    };
    Err(invalid(cause, text))
}

struct Claims(Map<String, Value>);

impl Claims {
    /// A required string; `cause` names what its absence is.
    fn text(&self, name: &str, cause: Cause) -> Result<&str, IdTokenError> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(invalid(cause, format!("{name} is not a string"))),
            None => Err(invalid(cause, format!("{name} is missing"))),
        }
    }

    fn optional_date(&self, name: &str) -> Result<Option<UnixSeconds>, IdTokenError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let date = json::numeric_date(value);
        let rule = if value.is_number() { "a valid time" } else { "a number" };
        date.map(Some).ok_or_else(|| malformed(format!("{name} is not {rule}")))
    }

    fn date(&self, name: &str) -> Result<UnixSeconds, IdTokenError> {
        self.optional_date(name)?.ok_or_else(|| malformed(format!("{name} is missing")))
    }

    fn allowed_issuer(&self, policy: &IssuerPolicy) -> Result<Issuer, IdTokenError> {
        let iss = self.text("iss", Cause::Issuer)?;
        let (is_allowed, expected) = match policy {
            IssuerPolicy::Exact(issuer) => (issuer.as_str() == iss, issuer),
            IssuerPolicy::Tenants(template, tenants) => {
                let tid = self.text("tid", Cause::Issuer)?;
                let is_listed = tenants.iter().any(|tenant| tenant.eq_ignore_ascii_case(tid));
                (is_listed && template.as_str().replace(TENANT_PLACEHOLDER, tid) == iss, template)
            }
        };
        if is_allowed {
            return Ok(Issuer::new(iss.to_owned()));
        }
        let text = format!("iss is {:?}, expected {:?}", quotable(iss), expected.as_str());
        Err(invalid(Cause::Issuer, text))
    }

    fn issuer(&self, policy: &IssuerPolicy, key: &VerificationKey) -> Result<Issuer, IdTokenError> {
        let issuer = self.allowed_issuer(policy)?;
        // Entra publishes keys of single tenants together with those of all tenants. Such a key
        // signs for its own tenant only.
        if let (IssuerPolicy::Tenants(..), Some(of_key)) = (policy, &key.issuer) {
            let tid = self.text("tid", Cause::Issuer)?;
            if of_key.replace(TENANT_PLACEHOLDER, tid) != issuer.as_str() {
                let text = "the token is signed by a key of another tenant";
                return Err(invalid(Cause::KeyOfOtherTenant, text));
            }
        }
        Ok(issuer)
    }

    fn issuer_of_userinfo(
        &self,
        policy: &IssuerPolicy,
        key: &VerificationKey,
    ) -> Result<(), IdTokenError> {
        // OIDC Core 5.3.2: a signed response SHOULD have iss. Without it, it is still signed by a
        // key of this IdP.
        if self.0.contains_key("iss") { self.issuer(policy, key).map(|_| ()) } else { Ok(()) }
    }

    fn audiences(&self) -> Result<Vec<&str>, IdTokenError> {
        let wrong = |text| invalid(Cause::Audience, text);
        match self.0.get("aud") {
            Some(Value::String(audience)) => Ok(vec![audience]),
            Some(Value::Array(audiences)) => {
                let texts: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| wrong("aud is not an array of strings"))
            }
            Some(_) => Err(wrong("aud is neither a string nor an array")),
            None => Err(wrong("aud is missing")),
        }
    }

    fn audience(&self, client_id: &str, additional: &[String]) -> Result<(), IdTokenError> {
        let audiences = self.audiences()?;
        if !audiences.contains(&client_id) {
            let named = quotable(&audiences.join(", "));
            let text = format!("aud is {named:?}, expected the client id {client_id:?}");
            return Err(invalid(Cause::Audience, text));
        }
        let is_known = |audience: &&str| {
            *audience == client_id || additional.iter().any(|known| known == audience)
        };
        if let Some(unknown) = audiences.iter().find(|audience| !is_known(audience)) {
            let unknown = quotable(unknown);
            let text =
                format!("aud also has {unknown:?}, which additional_audiences does not list");
            return Err(invalid(Cause::Audience, text));
        }
        if self.0.contains_key("azp") && self.text("azp", Cause::AuthorizedParty)? != client_id {
            return Err(invalid(Cause::AuthorizedParty, "azp is another client"));
        }
        Ok(())
    }

    fn nonce(&self, expected: &Nonce) -> Result<(), IdTokenError> {
        if !self.0.contains_key("nonce") {
            return Err(invalid(Cause::Nonce, "the ID token has no nonce"));
        }
        let nonce = self.text("nonce", Cause::Malformed)?.as_bytes();
        constant_time::verify_slices_are_equal(nonce, expected.expose().as_bytes())
            .map_err(|_| invalid(Cause::Nonce, "the ID token's nonce is not the one of this login"))
    }

    fn auth_time(&self, max_age: Option<Duration>, now: UnixSeconds) -> Result<(), IdTokenError> {
        // Several IdPs send it unasked, as a text, as null or in milliseconds. Nothing depends on it.
        let Some(max_age) = max_age else { return Ok(()) };
        let auth_time = self.optional_date("auth_time")?;
        let wrong = |text| invalid(Cause::AuthTime, text);
        let auth_time =
            auth_time.ok_or_else(|| wrong("auth_time is missing, though max_age was sent"))?;
        if now > auth_time.after(max_age).after(SKEW) {
            return Err(wrong("auth_time is longer ago than max_age allows"));
        }
        Ok(())
    }

    fn at_hash(&self, alg: SigningAlg, access_token: &str) -> Result<(), IdTokenError> {
        if !self.0.contains_key("at_hash") {
            return Ok(());
        }
        let hash = hash_of(alg, access_token.as_bytes());
        let expected = BASE64_URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]);
        if self.text("at_hash", Cause::AtHash)?.trim_end_matches('=') == expected {
            return Ok(());
        }
        Err(invalid(Cause::AtHash, "at_hash is not the hash of the access token"))
    }

    /// OIDC Core 2: at most 255 ASCII characters.
    fn subject(&self) -> Result<String, IdTokenError> {
        let wrong = |text| invalid(Cause::Subject, text);
        let sub = self.text("sub", Cause::Subject)?;
        let fits = (1..=255).contains(&sub.len()) && sub.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !fits {
            return Err(wrong("sub must be 1 to 255 printable ASCII characters"));
        }
        if sub == B2C_NO_SUBJECT {
            let text =
                "sub is Azure AD B2C's placeholder: have the user flow return the user's object id";
            return Err(wrong(text));
        }
        Ok(sub.to_owned())
    }
}

fn invalid(cause: Cause, text: impl Into<String>) -> IdTokenError {
    IdTokenError(Problem::new(cause, text))
}

fn malformed(text: impl Into<String>) -> IdTokenError {
    invalid(Cause::Malformed, text)
}

/// Allowed difference between the IdP's clock and ours.
pub(super) const SKEW: Duration = Duration::from_secs(60);
/// How long ago an ID token may have been issued when it is received.
pub(super) const MAX_TOKEN_AGE: Duration = Duration::from_secs(600);
/// Bytes of a token in compact serialization.
pub(super) const MAX_TOKEN: usize = 64 * 1024;
const B2C_NO_SUBJECT: &str = "Not supported currently. Use oid claim.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fuzzing::key_pair;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn expected<'a>(issuer: &'a IssuerPolicy, nonce: &'a Nonce) -> Expected<'a> {
        Expected {
            issuer,
            client_id: "client",
            additional_audiences: &[],
            algs: &[SigningAlg::EdDSA, SigningAlg::ES256],
            nonce,
            max_age: Some(Duration::from_secs(100)),
            access_token: "access",
            now: UnixSeconds(NOW),
        }
    }

    /// The cause for which this header and payload, correctly signed, are refused.
    fn refusal(header: &Value, changes: &Value) -> Option<Cause> {
        let mut claims = json!({
            "iss": "https://i", "sub": "ada", "aud": "client", "iat": NOW, "exp": NOW + 300,
            "auth_time": NOW, "nonce": "n",
        });
        let members = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            members.insert(name.clone(), value.clone());
        }
        members.retain(|_, value| !value.is_null());
        let token = key_pair().signed(header.to_string().as_bytes(), claims.to_string().as_bytes());
        refusal_of(token)
    }

    fn refusal_of(token: String) -> Option<Cause> {
        let issuer = IssuerPolicy::Exact(Issuer::new("https://i".to_owned()));
        let nonce = Nonce::new("n".to_owned());
        let token = RawIdToken::new(token);
        let verified = id_token(&token, &key_pair().published, &expected(&issuer, &nonce));
        verified.err().map(|error| error.cause())
    }

    #[test]
    fn each_claim_that_is_wrong_has_its_cause() {
        let header = json!({ "alg": "EdDSA" });
        for (changes, expected) in [
            (json!({}), None),
            (json!({ "iss": null }), Some(Cause::Issuer)),
            (json!({ "iss": "https://i/" }), Some(Cause::Issuer)),
            (json!({ "aud": ["client", 7] }), Some(Cause::Audience)),
            (json!({ "aud": ["client", "other"] }), Some(Cause::Audience)),
            (json!({ "azp": "other" }), Some(Cause::AuthorizedParty)),
            (json!({ "exp": NOW - 60 }), Some(Cause::Expired)),
            (json!({ "exp": null }), Some(Cause::Malformed)),
            (json!({ "exp": "soon" }), Some(Cause::Malformed)),
            (json!({ "nbf": NOW + 61 }), Some(Cause::NotYetValid)),
            (json!({ "iat": NOW + 61 }), Some(Cause::IssuedInFuture)),
            (json!({ "iat": NOW - 661 }), Some(Cause::IssuedTooLongAgo)),
            (json!({ "nonce": null }), Some(Cause::Nonce)),
            (json!({ "nonce": "m" }), Some(Cause::Nonce)),
            (json!({ "nonce": 1 }), Some(Cause::Malformed)),
            (json!({ "auth_time": null }), Some(Cause::AuthTime)),
            (json!({ "auth_time": NOW.to_string() }), Some(Cause::Malformed)),
            (json!({ "auth_time": NOW * 1000 }), Some(Cause::Malformed)),
            (json!({ "auth_time": NOW - 161 }), Some(Cause::AuthTime)),
            (json!({ "at_hash": "AAAA" }), Some(Cause::AtHash)),
            (json!({ "events": {} }), Some(Cause::SecurityEvent)),
            (json!({ "sub": "" }), Some(Cause::Subject)),
            (json!({ "sub": B2C_NO_SUBJECT }), Some(Cause::Subject)),
        ] {
            assert_eq!(refusal(&header, &changes), expected, "{changes}");
        }
    }

    #[test]
    fn each_header_that_is_wrong_has_its_cause() {
        for (header, expected) in [
            (json!({}), Some(Cause::AlgMissing)),
            (json!({ "alg": "None" }), Some(Cause::AlgNone)),
            (json!({ "alg": "HS256" }), Some(Cause::AlgHmac)),
            (json!({ "alg": "RS256" }), Some(Cause::AlgNotAllowed)),
            (json!({ "alg": "ES256" }), Some(Cause::UnknownKey)),
            (json!({ "alg": "EdDSA", "kid": "other" }), Some(Cause::UnknownKey)),
            (json!({ "alg": "EdDSA", "kid": 1 }), Some(Cause::Malformed)),
            (json!({ "alg": "EdDSA", "crit": ["exp"] }), Some(Cause::CriticalExtension)),
            (json!({ "alg": "EdDSA", "typ": "at+jwt" }), Some(Cause::TokenType)),
            (json!({ "alg": "EdDSA", "typ": "JWT", "kid": "ed" }), None),
            (json!({ "alg": "Ed25519" }), None),
            (json!({ "alg": "Ed448" }), Some(Cause::AlgNotAllowed)),
        ] {
            assert_eq!(refusal(&header, &json!({})), expected, "{header}");
        }
        let signed = key_pair().signed(br#"{"alg":"EdDSA"}"#, b"{}");
        let message = signed.rsplit_once('.').expect("three parts").0;
        for (token, expected) in [
            ("a.b.c.d.e".to_owned(), Cause::Encrypted),
            ("a.b".to_owned(), Cause::Malformed),
            ("x".repeat(MAX_TOKEN), Cause::Malformed),
            ("x".repeat(MAX_TOKEN + 1), Cause::TooLarge),
            (format!("{message}.+"), Cause::SignatureMalformed),
            (format!("{message}.AAAA"), Cause::SignatureMismatch),
        ] {
            assert_eq!(refusal_of(token), Some(expected));
        }
    }

    #[test]
    fn debug_output_shows_the_issuer_and_no_claim() {
        let all = json!({ "email": "ada@example.com" }).as_object().expect("an object").clone();
        let claims = VerifiedClaims {
            issuer: Issuer::new("https://i".to_owned()),
            subject: "ada".to_owned(),
            issued_at: UnixSeconds(0),
            all,
        };
        let shown = format!("{claims:?}");
        assert!(shown.contains("https://i") && !shown.contains("ada"), "{shown}");
    }

    proptest::proptest! {
        /// Any text that no key has signed is refused without a panic.
        #[test]
        fn made_up_tokens_are_refused(parts in proptest::collection::vec("\\PC{0,40}", 0..7), alg in "RS256|ES256|EdDSA|none|HS256|x") {
            let (issuer, nonce) = (IssuerPolicy::Exact(Issuer::new("https://i".to_owned())), Nonce::new("n".to_owned()));
            let encoded: Vec<String> = parts.iter().map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).collect();
            let header = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\"}}"));
            for token in [parts.join("."), encoded.join("."), format!("{header}.{}", encoded.join("."))] {
                let refused = id_token(&RawIdToken::new(token.clone()), &KeySet::default(), &expected(&issuer, &nonce));
                proptest::prop_assert!(refused.is_err());
                let _ = owner_of_hint(&token, &issuer, "client");
            }
        }

        #[test]
        fn claims_of_any_type_do_not_panic(number in proptest::prelude::any::<f64>(), text in "\\PC{0,12}") {
            let issuer = IssuerPolicy::Tenants(Issuer::new("https://i/{tenantid}".to_owned()), vec![text.clone()]);
            for value in [Value::from(number), Value::from(text.as_str()), Value::Null, json!([text, number]), json!({})] {
                let names = ["iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "auth_time", "at_hash", "tid"];
                let claims = Claims(names.iter().map(|name| ((*name).to_owned(), value.clone())).collect());
                let _ = (claims.allowed_issuer(&issuer), claims.audience("client", &[]), claims.subject());
                let _ = (claims.optional_date("exp"), claims.auth_time(Some(Duration::MAX), UnixSeconds(u64::MAX)), claims.at_hash(SigningAlg::ES256, ""));
                let _ = claims.nonce(&Nonce::new(text.clone()));
            }
        }
    }
}
