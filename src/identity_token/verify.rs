//! Verifies identity tokens and returns the Identity in them, for backends that only speak gRPC. Accepts
//! only what [`issue`](super::issue) makes for this audience.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::IdentityTokenError::{Expired, Invalid};
use super::{ALG, IdentityTokenError, IdentityTokens, Payload, REPLICA_SKEW, TYP};
use crate::model::identity::Identity;

impl IdentityTokens {
    /// Verifies a token and returns its identity.
    ///
    /// # Errors
    /// See [`IdentityTokenError`].
    pub async fn verify(&self, token: &str) -> Result<Identity, IdentityTokenError> {
        let [header, payload, signature] = split(token)?;
        let key = self
            .published_key(&key_id(header)?)
            .await?
            .ok_or(Invalid("the token's key is not one of this service"))?;
        let signature =
            BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid(BAD_SIGNATURE))?;
        key.public
            .verify_sig(format!("{header}.{payload}").as_bytes(), &signature)
            .map_err(|_| Invalid(BAD_SIGNATURE))?;
        let payload: Payload<'_> = decode(payload)?;
        if payload.iss != self.policy.issuer {
            return Err(Invalid("the token's iss is not this service"));
        }
        if payload.aud != self.policy.audience {
            return Err(Invalid("the token's aud is another audience"));
        }
        let now = self.clock.unix_seconds();
        if now >= payload.exp {
            return Err(Expired);
        }
        if payload.iat > now.after(REPLICA_SKEW) {
            return Err(Invalid("the token's iat is in the future"));
        }
        Ok(payload.identity.into_owned())
    }
}

fn split(token: &str) -> Result<[&str; 3], IdentityTokenError> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Ok([header, payload, signature]),
        _ => Err(Invalid("the token is not a signed JWT")),
    }
}

/// Checks the header of a token and returns the id of its key.
fn key_id(header: &str) -> Result<String, IdentityTokenError> {
    let header: Value = decode(header)?;
    let text = |name| header.get(name).and_then(Value::as_str);
    if text("alg") != Some(ALG) {
        return Err(Invalid("the token's alg is not ES256"));
    }
    // Every other kind of JWT, such as an ID token, has another typ (RFC 8725 3.11).
    if !text("typ").is_some_and(|typ| typ.eq_ignore_ascii_case(TYP)) {
        return Err(Invalid("the token's typ is not identity+jwt"));
    }
    if header.get("crit").is_some() {
        return Err(Invalid("the token requires an extension (crit)"));
    }
    text("kid").map(str::to_owned).ok_or(Invalid("the token has no kid"))
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, IdentityTokenError> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Invalid("the token is not a signed JWT"))?;
    serde_json::from_slice(&bytes).map_err(|_| Invalid("the token is not an identity token"))
}

const BAD_SIGNATURE: &str = "the token's signature is not by this service";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_has_exactly_three_parts() {
        assert_eq!(split("a.b.c").expect("three"), ["a", "b", "c"]);
        for bad in ["", "a", "a.b", "a.b.c.d"] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_headers_of_identity_tokens_are_accepted() {
        let key_id = |header: Value| key_id(&BASE64_URL_SAFE_NO_PAD.encode(header.to_string()));
        let good = json!({ "alg": "ES256", "typ": "Identity+JWT", "kid": "k" });
        assert_eq!(key_id(good.clone()).expect("accepted"), "k");
        for (name, value) in [
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("alg", json!(null)),
            ("typ", json!("JWT")),
            ("typ", json!(null)),
            ("crit", json!(["exp"])),
            ("kid", json!(7)),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(matches!(key_id(bad.clone()), Err(Invalid(_))), "{bad}");
        }
        assert!(super::key_id("!").is_err());
    }
}
