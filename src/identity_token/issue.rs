//! Issues identity tokens: compact JWS over the claims of an Identity.

use std::borrow::Cow;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

use super::{ALG, IdentityTokenError, IdentityTokens, Payload, TYP};
use crate::model::identity::Identity;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

impl IdentityTokens {
    /// Returns a token with this identity.
    ///
    /// # Errors
    /// [`IdentityTokenError::NoKey`]
    pub fn issue(&self, identity: &Identity) -> Result<String, IdentityTokenError> {
        let key = self.keys.load().signing.clone().ok_or(IdentityTokenError::NoKey)?;
        let now = self.clock.unix_seconds();
        let mut jti = [0; 16];
        self.entropy.fill(&mut jti);
        let payload = Payload {
            iss: self.policy.issuer.clone(),
            sub: subject_of(identity),
            aud: self.policy.audience.clone(),
            iat: now,
            exp: now.after(self.policy.ttl),
            jti: BASE64_URL_SAFE_NO_PAD.encode(jti),
            identity: Cow::Borrowed(identity),
        };
        let header = encode(&Header { alg: ALG, typ: TYP, kid: &key.kid })?;
        let message = format!("{header}.{}", encode(&payload)?);
        let signature = key
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| IdentityTokenError::NoKey)?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `sub`: the same for every login of a person. A digest of slug, issuer and subject, each preceded by
/// its length so that no two triples give the same input.
fn subject_of(identity: &Identity) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [identity.slug.as_str(), identity.issuer.as_str(), identity.subject.as_str()] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(context.finish())
}

fn encode(part: &impl Serialize) -> Result<String, IdentityTokenError> {
    let json = serde_json::to_vec(part)
        .map_err(|_| IdentityTokenError::Invalid("the identity can't be written as JSON"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
}
