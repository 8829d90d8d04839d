//! Every check of an ID token, numbered as in OIDC Core 3.1.3.7, and of the other JWTs that an IdP signs. Pure: keys,
//! time and expectations come in. Must stay the only place that decides whether a token is good.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::IdTokenError;
use super::json;
use super::keys::{KeySet, VerificationKey, hash_of};
use crate::model::connection::{Issuer, TENANT_PLACEHOLDER};
use crate::model::login::{Nonce, RawIdToken};
use crate::model::signing_alg::SigningAlg;
use crate::model::text::quotable;
use crate::model::time::UnixSeconds;

/// Whose tokens pass.
#[derive(Clone, Debug)]
pub(super) enum IssuerPolicy {
    /// This issuer's, compared exactly.
    Exact(Issuer),
    /// Entra's multi-tenant template: the token's `iss` is the template with its own `tid`, one of these.
    Tenants(Issuer, Vec<String>),
}

/// What an ID token of this login must say.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a IssuerPolicy,
    pub(super) client_id: &'a str,
    pub(super) additional_audiences: &'a [String],
    pub(super) algs: &'a [SigningAlg],
    pub(super) nonce: &'a Nonce,
    /// `Some`: `max_age` was sent.
    pub(super) max_age: Option<Duration>,
    /// The access token that came with the ID token.
    pub(super) access_token: &'a str,
    /// The time of the check.
    pub(super) now: UnixSeconds,
}

/// The claims of an ID token that passed every check.
pub struct VerifiedClaims {
    pub(super) issuer: Issuer,
    pub(super) subject: String,
    pub(super) issued_at: UnixSeconds,
    pub(super) all: Map<String, Value>,
}

/// Claims are personal data: not shown.
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
    // (6), (7), (8): the signature first, so that nothing below reads what a stranger wrote.
    let key = jws.verified_by(keys)?;
    let claims = Claims(jws.payload()?);
    // (1) is an encrypted token: refused by Jws::parse.
    // (2) iss
    let issuer = claims.issuer(expected.issuer, key)?;
    // (3), (4), (5) aud, azp
    claims.audience(expected.client_id, expected.additional_audiences)?;
    // (9) exp, with RFC 7519 4.1.5 nbf
    let now = expected.now;
    if now >= claims.date("exp")?.after(SKEW) {
        return Err(invalid("the ID token has expired (exp)"));
    }
    if claims.optional_date("nbf")?.is_some_and(|nbf| nbf > now.after(SKEW)) {
        return Err(invalid("the ID token is not valid yet (nbf)"));
    }
    // (10) iat
    let issued_at = claims.date("iat")?;
    if issued_at > now.after(SKEW) {
        return Err(invalid("the ID token was issued in the future (iat)"));
    }
    if now > issued_at.after(MAX_TOKEN_AGE + SKEW) {
        return Err(invalid("the ID token was issued more than 10 minutes ago (iat)"));
    }
    // (11) nonce
    claims.nonce(expected.nonce)?;
    // (13) auth_time; (12) acr is voluntary: `acr_values` asks, it doesn't demand.
    claims.auth_time(expected.max_age, now)?;
    // 3.1.3.8 at_hash
    claims.at_hash(jws.alg, expected.access_token)?;
    // A token of another kind that happens to be signed by the same key (Back-Channel Logout 2.4).
    if claims.0.contains_key("events") {
        return Err(invalid("it is a security event or logout token, not an ID token (events)"));
    }
    let subject = claims.subject()?;
    Ok(VerifiedClaims { issuer, subject, issued_at, all: claims.0 })
}

/// Verifies a UserInfo response that came as a signed JWT (OIDC Core 5.3.2): `iss` and `aud` are of this IdP and client,
/// and it hasn't expired where it says when.
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
        return Err(invalid("the signed UserInfo response has expired (exp)"));
    }
    Ok(claims.0)
}

/// Whether an ID token, possibly long expired, is of this issuer and client: for a logout's hint, which the IdP verifies.
pub(super) fn is_hint_for(token: &str, issuer: &IssuerPolicy, client_id: &str) -> bool {
    let Some(payload) = token
        .split('.')
        .nth(1)
        .filter(|_| token.split('.').count() == 3 && token.len() <= MAX_TOKEN)
    else {
        return false;
    };
    let Some(claims) = BASE64_URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|bytes| json::parse_object(&bytes).ok())
    else {
        return false;
    };
    let claims = Claims(claims);
    let is_ours = claims.audiences().is_ok_and(|audiences| audiences.contains(&client_id));
    is_ours && claims.allowed_issuer(issuer).is_ok()
}

/// A JWS in compact serialisation (RFC 7515 7.1), split and its header read.
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
            return Err(invalid("the token has more than 65536 bytes"));
        }
        let parts: Vec<&str> = token.split('.').take(6).collect();
        let [header, payload, signature] = match parts.as_slice() {
            [header, payload, signature] => [*header, *payload, *signature],
            [_, _, _, _, _] => {
                return Err(invalid(
                    "the token is encrypted (JWE), which this service does not take: have the IdP sign only",
                ));
            }
            _ => return Err(invalid("the token is no JWT")),
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| invalid("the token's header is not base64url"))?;
        let header = json::parse_object(&bytes)
            .map_err(|detail| invalid(format!("the token's header: {detail}")))?;
        if header.contains_key("crit") {
            return Err(invalid("the token's header demands an extension (crit)"));
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if types.contains(&typ.to_ascii_lowercase().as_str()) => {}
            Some(Value::String(typ)) => {
                return Err(invalid(format!(
                    "the token is of another type (typ {:?})",
                    quotable(typ)
                )));
            }
            Some(_) => return Err(invalid("the token's typ is no string")),
        }
        let kid = match header.get("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(invalid("the token's kid is no string")),
        };
        let alg = signing_alg(&header, algs)?;
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| IdTokenError::Signature("the signature is not base64url".to_owned()))?;
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
        Err(match (&self.kid, was_tried) {
            (_, true) => IdTokenError::UnknownKey(format!(
                "the {alg} signature is not by a key that the IdP publishes"
            )),
            (Some(kid), false) => IdTokenError::UnknownKey(format!(
                "the IdP publishes no {alg} key with the token's kid {:?}",
                quotable(kid)
            )),
            (None, false) => IdTokenError::UnknownKey(format!("the IdP publishes no {alg} key")),
        })
    }

    fn payload(&self) -> Result<Map<String, Value>, IdTokenError> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(self.payload)
            .map_err(|_| invalid("the token's payload is not base64url"))?;
        json::parse_object(&bytes)
            .map_err(|detail| invalid(format!("the token's payload: {detail}")))
    }
}

/// (7) alg: one of those allowed; `none` and MACs never are (RFC 8725 3.1, 3.2).
fn signing_alg(
    header: &Map<String, Value>,
    algs: &[SigningAlg],
) -> Result<SigningAlg, IdTokenError> {
    let Some(Value::String(name)) = header.get("alg") else {
        return Err(IdTokenError::Signature("the token names no algorithm (alg)".to_owned()));
    };
    match SigningAlg::parse(name) {
        Some(alg) if algs.contains(&alg) => Ok(alg),
        _ if name.eq_ignore_ascii_case("none") => {
            Err(IdTokenError::Signature("the token is not signed (alg none)".to_owned()))
        }
        _ if name.starts_with("HS") => {
            let name = quotable(name);
            Err(IdTokenError::Signature(format!(
                "the token is signed with the client secret ({name}), which is not accepted: switch the client to RS256"
            )))
        }
        _ => {
            let allowed: Vec<_> = algs.iter().map(|alg| alg.name()).collect();
            let (name, allowed) = (quotable(name), allowed.join(", "));
            Err(IdTokenError::Signature(format!(
                "the token is signed with {name}; accepted here: {allowed}"
            )))
        }
    }
}

struct Claims(Map<String, Value>);

impl Claims {
    fn text(&self, name: &str) -> Result<&str, IdTokenError> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(invalid(format!("{name} is no string"))),
            None => Err(invalid(format!("{name} is missing"))),
        }
    }

    /// RFC 7519 2 NumericDate, in whole seconds.
    fn optional_date(&self, name: &str) -> Result<Option<UnixSeconds>, IdTokenError> {
        const LAST: f64 = 253_402_300_799.0; // 9999-12-31T23:59:59Z, the last that a Timestamp holds
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it is within 0 and LAST"
                )]
                Some(seconds) if (0.0..=LAST).contains(&seconds) => {
                    Ok(Some(UnixSeconds(seconds as u64)))
                }
                _ => Err(invalid(format!("{name} is no time"))),
            },
            Some(_) => Err(invalid(format!("{name} is no number"))),
        }
    }

    fn date(&self, name: &str) -> Result<UnixSeconds, IdTokenError> {
        self.optional_date(name)?.ok_or_else(|| invalid(format!("{name} is missing")))
    }

    fn allowed_issuer(&self, policy: &IssuerPolicy) -> Result<Issuer, IdTokenError> {
        let iss = self.text("iss")?;
        let (is_allowed, expected) = match policy {
            IssuerPolicy::Exact(issuer) => (issuer.as_str() == iss, issuer),
            IssuerPolicy::Tenants(template, tenants) => {
                let tid = self.text("tid")?;
                let is_listed = tenants.iter().any(|tenant| tenant.eq_ignore_ascii_case(tid));
                (is_listed && template.as_str().replace(TENANT_PLACEHOLDER, tid) == iss, template)
            }
        };
        if is_allowed {
            Ok(Issuer::new(iss.to_owned()))
        } else {
            Err(invalid(format!("iss is {:?}, expected {:?}", quotable(iss), expected.as_str())))
        }
    }

    fn issuer(&self, policy: &IssuerPolicy, key: &VerificationKey) -> Result<Issuer, IdTokenError> {
        let issuer = self.allowed_issuer(policy)?;
        // Entra publishes keys of single tenants beside those of all: such a key signs for its own tenant alone.
        if let (IssuerPolicy::Tenants(..), Some(of_key)) = (policy, &key.issuer) {
            let of_key = of_key.replace(TENANT_PLACEHOLDER, self.text("tid")?);
            if of_key != issuer.as_str() {
                return Err(IdTokenError::Signature(
                    "the token is signed by a key of another tenant".to_owned(),
                ));
            }
        }
        Ok(issuer)
    }

    fn issuer_of_userinfo(
        &self,
        policy: &IssuerPolicy,
        key: &VerificationKey,
    ) -> Result<(), IdTokenError> {
        // OIDC Core 5.3.2: a signed response SHOULD have iss; one that has none still is signed by this IdP's key.
        if self.0.contains_key("iss") { self.issuer(policy, key).map(|_| ()) } else { Ok(()) }
    }

    fn audiences(&self) -> Result<Vec<&str>, IdTokenError> {
        match self.0.get("aud") {
            Some(Value::String(audience)) => Ok(vec![audience]),
            Some(Value::Array(audiences)) => {
                let texts: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| invalid("aud holds something else than strings"))
            }
            Some(_) => Err(invalid("aud is neither a string nor an array")),
            None => Err(invalid("aud is missing")),
        }
    }

    fn audience(&self, client_id: &str, additional: &[String]) -> Result<(), IdTokenError> {
        let audiences = self.audiences()?;
        if !audiences.contains(&client_id) {
            let named = quotable(&audiences.join(", "));
            return Err(invalid(format!(
                "aud is {named:?}, which does not hold the client id {client_id:?}"
            )));
        }
        let is_known = |audience: &&str| {
            *audience == client_id || additional.iter().any(|known| known == audience)
        };
        if let Some(stranger) = audiences.iter().find(|audience| !is_known(audience)) {
            return Err(invalid(format!(
                "aud also holds {:?}, which the connection does not list",
                quotable(stranger)
            )));
        }
        if self.0.contains_key("azp") && self.text("azp")? != client_id {
            return Err(invalid("azp is another client"));
        }
        Ok(())
    }

    fn nonce(&self, expected: &Nonce) -> Result<(), IdTokenError> {
        if !self.0.contains_key("nonce") {
            return Err(IdTokenError::Nonce);
        }
        let nonce = self.text("nonce")?;
        let is_equal =
            constant_time::verify_slices_are_equal(nonce.as_bytes(), expected.expose().as_bytes())
                .is_ok();
        if is_equal { Ok(()) } else { Err(IdTokenError::Nonce) }
    }

    fn auth_time(&self, max_age: Option<Duration>, now: UnixSeconds) -> Result<(), IdTokenError> {
        let auth_time = self.optional_date("auth_time")?;
        let Some(max_age) = max_age else { return Ok(()) };
        let auth_time =
            auth_time.ok_or_else(|| invalid("auth_time is missing, though max_age was sent"))?;
        if now > auth_time.after(max_age).after(SKEW) {
            return Err(invalid("auth_time is older than the max_age that was sent"));
        }
        Ok(())
    }

    fn at_hash(&self, alg: SigningAlg, access_token: &str) -> Result<(), IdTokenError> {
        if !self.0.contains_key("at_hash") {
            return Ok(());
        }
        let hash = hash_of(alg, access_token.as_bytes());
        let expected = BASE64_URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]);
        let is_equal = self.text("at_hash")?.trim_end_matches('=') == expected;
        if is_equal { Ok(()) } else { Err(invalid("at_hash is not that of the access token")) }
    }

    /// OIDC Core 2: at most 255 ASCII characters.
    fn subject(&self) -> Result<String, IdTokenError> {
        let sub = self.text("sub")?;
        let fits = (1..=255).contains(&sub.len()) && sub.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !fits {
            return Err(invalid("sub must be 1 to 255 printable ASCII characters"));
        }
        if sub == B2C_NO_SUBJECT {
            return Err(invalid(
                "sub is Azure AD B2C's placeholder: have the user flow issue a real subject",
            ));
        }
        Ok(sub.to_owned())
    }
}

fn invalid(text: impl Into<String>) -> IdTokenError {
    IdTokenError::Invalid(text.into())
}

/// Between the IdP's clock and ours.
const SKEW: Duration = Duration::from_secs(60);
/// How long ago an ID token may have been issued when it arrives.
const MAX_TOKEN_AGE: Duration = Duration::from_secs(600);
/// Bytes of a token in compact serialisation.
pub(super) const MAX_TOKEN: usize = 64 * 1024;
const B2C_NO_SUBJECT: &str = "Not supported currently. Use oid claim.";

#[cfg(test)]
mod tests {
    use super::*;

    fn expected<'a>(issuer: &'a IssuerPolicy, nonce: &'a Nonce) -> Expected<'a> {
        Expected {
            issuer,
            client_id: "client",
            additional_audiences: &[],
            algs: &SigningAlg::ALL,
            nonce,
            max_age: Some(Duration::from_secs(1)),
            access_token: "a",
            now: UnixSeconds(1_800_000_000),
        }
    }

    #[test]
    fn a_token_has_at_most_64_kib() {
        let parse = |len: usize| Jws::parse(&"x".repeat(len), &SigningAlg::ALL, &["jwt"]).err();
        assert_eq!(parse(MAX_TOKEN), Some(invalid("the token is no JWT")));
        assert_eq!(parse(MAX_TOKEN + 1), Some(invalid("the token has more than 65536 bytes")));
    }

    #[test]
    fn debug_output_tells_the_issuer_and_no_claim() {
        let all = serde_json::json!({ "email": "ada@example.com" })
            .as_object()
            .expect("an object")
            .clone();
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
        /// Whatever an IdP sends for a token is refused without a panic, where no key has signed it.
        #[test]
        fn made_up_tokens_are_refused(parts in proptest::collection::vec("\\PC{0,40}", 0..7), alg in "RS256|ES256|EdDSA|none|HS256|x") {
            let (issuer, nonce) = (IssuerPolicy::Exact(Issuer::new("https://i".to_owned())), Nonce::new("n".to_owned()));
            let encoded: Vec<String> = parts.iter().map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).collect();
            let header = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\"}}"));
            for token in [parts.join("."), encoded.join("."), format!("{header}.{}", encoded.join("."))] {
                let refused = id_token(&RawIdToken::new(token.clone()), &KeySet::default(), &expected(&issuer, &nonce));
                proptest::prop_assert!(refused.is_err());
                let _ = is_hint_for(&token, &issuer, "client");
            }
        }

        #[test]
        fn claims_of_any_type_do_not_panic(number in proptest::prelude::any::<f64>(), text in "\\PC{0,12}") {
            let issuer = IssuerPolicy::Tenants(Issuer::new("https://i/{tenantid}".to_owned()), vec![text.clone()]);
            for value in [Value::from(number), Value::from(text.as_str()), Value::Null, serde_json::json!([text, number]), serde_json::json!({})] {
                let names = ["iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "auth_time", "at_hash", "tid"];
                let claims = Claims(names.iter().map(|name| ((*name).to_owned(), value.clone())).collect());
                let _ = (claims.allowed_issuer(&issuer), claims.audience("client", &[]), claims.subject());
                let _ = (claims.optional_date("exp"), claims.auth_time(Some(Duration::MAX), UnixSeconds(u64::MAX)), claims.at_hash(SigningAlg::ES256, ""));
                let _ = claims.nonce(&Nonce::new(text.clone()));
            }
        }
    }
}
