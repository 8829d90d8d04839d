"""A backend that learns who a person is from the identity token that came with a call: it gets the keys from the metrics
listener and verifies by itself, with a JWT library. The token comes on standard input:

    pip install 'pyjwt[crypto]'
    echo "$IDENTITY_TOKEN" | python backend.py http://127.0.0.1:9090/.well-known/jwks.json \\
        https://getpeerpanda.com https://backends.getpeerpanda.com
"""
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:]
# Keeps the keys, and gets them again for a token by one that it hasn't.
keys = jwt.PyJWKClient(jwks_url, lifespan=3600)


def who(token: str) -> dict:
    """The claims of a token; `sub` is a person's key. Raises jwt.PyJWTError."""
    # Another kind of JWT, such as an ID token, must not pass for one of these (RFC 8725 3.11).
    if jwt.get_unverified_header(token).get("typ") != "identity+jwt":
        raise jwt.InvalidTokenError("no identity token")
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
