"""A backend that identifies a person by the identity token of an incoming call. It fetches the signing keys from the
metrics listener and verifies the token offline with a JWT library. The token is read from standard input:

    pip install 'pyjwt[crypto]'
    echo "$IDENTITY_TOKEN" | python backend.py http://127.0.0.1:9090/.well-known/jwks.json \\
        https://getpeerpanda.com https://backends.getpeerpanda.com
"""
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:]
# Caches the keys, and fetches them again when a token is signed by an unknown key.
keys = jwt.PyJWKClient(jwks_url, lifespan=3600)


def who(token: str) -> dict:
    """Returns the claims of a valid token; `sub` identifies the person. Raises jwt.PyJWTError."""
    # Another kind of JWT, such as an ID token, must not be accepted as an identity token (RFC 8725 3.11).
    if jwt.get_unverified_header(token).get("typ") != "identity+jwt":
        raise jwt.InvalidTokenError("not an identity token")
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=["ES256"],
        issuer=issuer,
        audience=audience,
        options={"require": ["exp", "iss", "aud", "sub"]},
    )


try:
    person = who(sys.stdin.read().strip())
except jwt.PyJWTError as error:
    sys.exit(f"refused: {error}")
print(person["sub"], "is", person["email"], "of", person["slug"])
