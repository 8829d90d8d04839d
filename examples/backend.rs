//! A backend that identifies a user by the identity token of a call: it fetches the keys from
//! IdentityService and verifies the token itself, with a JWT library. It reads the token from
//! standard input:
//!
//! ```text
//! echo "$IDENTITY_TOKEN" | cargo run --example backend -- \
//!     http://127.0.0.1:50051 https://getpeerpanda.com https://backends.getpeerpanda.com
//! ```

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use peerpanda_sso::pb;
use peerpanda_sso::pb::identity_service_client::IdentityServiceClient;
use serde::Deserialize;

/// The claims that this backend uses. `sub` identifies a user for good, while the e-mail can
/// change.
#[derive(Deserialize)]
struct Person {
    sub: String,
    slug: String,
    email: String,
}

/// `keys` may be cached for an hour. If a token's key is missing, fetch them again, once.
fn verify(
    token: &str,
    keys: &JwkSet,
    issuer: &str,
    audience: &str,
) -> Result<Person, Box<dyn std::error::Error>> {
    let header = jsonwebtoken::decode_header(token)?;
    // Another kind of JWT, such as an ID token, must not be accepted (RFC 8725 3.11).
    if header.typ.as_deref() != Some("identity+jwt") {
        return Err("the token is not an identity token".into());
    }
    let key = keys
        .find(header.kid.as_deref().unwrap_or_default())
        .ok_or("the token was signed with an unknown key")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    Ok(jsonwebtoken::decode::<Person>(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the example prints its result")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(issuer), Some(audience)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: backend http[s]://HOST:PORT ISSUER AUDIENCE < FILE_WITH_TOKEN".into());
    };
    let mut sso = IdentityServiceClient::connect(target).await?;
    let keys = sso.list_signing_keys(pb::ListSigningKeysRequest {}).await?.into_inner().jwks;
    let token = std::io::read_to_string(std::io::stdin())?;
    let person = verify(token.trim(), &serde_json::from_str(&keys)?, &issuer, &audience)?;
    println!("{} is {} of {}", person.sub, person.email, person.slug);
    Ok(())
}
