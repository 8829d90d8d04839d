"""A backend that identifies a user by the identity token of a call: it fetches the keys from the
metrics listener and verifies the token itself, with a JWT library. It reads the token from standard
input:

    pip install 'pyjwt[crypto]'
    echo "$IDENTITY_TOKEN" | python backend.py http://127.0.0.1:9090/.well-known/jwks.json \\
        https://getpeerpanda.com https://backends.getpeerpanda.com
"""
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:]
# Caches the keys, and fetches them again when a token's key is missing.
keys = jwt.PyJWKClient(jwks_url, lifespan=3600)


def verify(token: str) -> dict:
    """Returns the claims of a token; `sub` identifies the user. Raises jwt.PyJWTError."""
    # Another kind of JWT, such as an ID token, must not be accepted (RFC 8725 3.11).
    if jwt.get_unverified_header(token).get("typ") != "identity+jwt":
        raise jwt.InvalidTokenError("the token is not an identity token")
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=["ES256"],
        issuer=issuer,
        audience=audience,
        options={"require": ["exp", "iss", "aud", "sub"]},
    )


try:
    person = verify(sys.stdin.read().strip())
except jwt.PyJWTError as error:
    sys.exit(f"refused: {error}")
print(person["sub"], "is", person["email"], "of", person["slug"])
