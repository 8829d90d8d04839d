"""What an IdP answers to right and wrong requests: the facts behind its rows."""

import base64
import json
import secrets
import urllib.parse

from browser import Browser, text_of

MAX_SHOWN = 700
WRONG = "a-wrong-secret-of-the-matrix"


def token_answer(metadata, client_id, secret, method, form):
    """The answer of the token endpoint; `method` is basic, post or raw (Basic without form encoding)."""
    form, headers = dict(form), {"Accept": "application/json"}
    if method == "post":
        form |= {"client_id": client_id, "client_secret": secret}
    else:
        encode = urllib.parse.quote_plus if method == "basic" else str
        pair = f"{encode(client_id)}:{encode(secret)}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    page = Browser().request("POST", metadata["token_endpoint"], urllib.parse.urlencode(form), headers)
    try:
        answer = json.loads(page.body)
        error, description = answer.get("error"), answer.get("error_description")
        said = "a token" if "access_token" in answer else f"{error}: {description}" if description else f"{error}"
    except ValueError:
        said = f"no JSON: {text_of(page.body)[:120]!r}"
    return f"{page.status} {page.headers.get_content_type()}, {said}"


def made_up_code(redirect_uri):
    return {"grant_type": "authorization_code", "code": secrets.token_urlsafe(24), "redirect_uri": redirect_uri,
            "code_verifier": secrets.token_urlsafe(48)}


def authorize(metadata, client_id, redirect_uri, **extra):
    query = {"response_type": "code", "client_id": client_id, "redirect_uri": redirect_uri,
             "scope": "openid email profile", "state": secrets.token_urlsafe(16), "nonce": secrets.token_urlsafe(16),
             "code_challenge": secrets.token_urlsafe(32)[:43], "code_challenge_method": "S256", **extra}
    return end_of(metadata["authorization_endpoint"], query, redirect_uri)


def end_of(endpoint, query, ours):
    origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(ours))
    page = Browser().wander(endpoint + "?" + urllib.parse.urlencode(query), origin)
    if page.is_redirect:
        at = urllib.parse.urlsplit(page.location)
        query = dict(urllib.parse.parse_qsl(at.query))
        said = {name: query[name] for name in ("error", "error_description", "code") if name in query}
        said = {name: "…" if name == "code" else value for name, value in said.items()}
        return f"{page.status} to {at.path} with {said}"
    path, text = urllib.parse.urlsplit(page.url).path, text_of(page.body)[:MAX_SHOWN]
    return f"{page.status} {page.headers.get_content_type()} at {path}: {text!r}"


def answers(metadata, basic, post, odd):
    """Pairs of what was sent and what the IdP answered."""
    redirect_uri = basic.redirect_uris[0]

    def grants(client, secret, method):
        grants = {"client_credentials": {"grant_type": "client_credentials"}, "made-up code": made_up_code(client.redirect_uris[0])}
        for grant, form in grants.items():
            yield grant, token_answer(metadata, client.id, secret, method, form)

    for own, client in {"basic": basic, "post": post}.items():
        for method in (own, "post" if own == "basic" else "basic"):
            for secret, which in ((client.secret, "right secret"), (WRONG, "wrong secret")):
                for grant, said in grants(client, secret, method):
                    yield f"client for {own}, sent by {method}, {which}, {grant}", said
    for method in ("basic", "raw", "post"):
        said = token_answer(metadata, odd.id, odd.secret, method, made_up_code(odd.redirect_uris[0]))
        yield f"client for basic with secret {odd.secret!r}, sent by {method}, made-up code", said
    said = token_answer(metadata, "nobody", WRONG, "basic", made_up_code(redirect_uri))
    yield "unknown client, basic, made-up code", said

    # OIDC Core 3.1.2.1: "none" with another value is an error.
    for prompt in ({"prompt": "none"}, {"prompt": "none login"}, {}):
        word = "prompt=" + prompt["prompt"] if prompt else "no prompt"
        for client_id, uri, which in (
            (basic.id, redirect_uri, "registered redirect URI"),
            (basic.id, redirect_uri + "unregistered/", "unregistered redirect URI"),
            ("nobody", redirect_uri, "unknown client"),
        ):
            yield f"authorization, {which}, {word}", authorize(metadata, client_id, uri, **prompt)
    said = authorize(metadata, basic.id, redirect_uri, prompt="none", scope="openid made-up")
    yield "authorization, unknown scope, prompt=none", said

    endpoint, uri = metadata.get("end_session_endpoint"), basic.post_logout_uris[0]
    if not endpoint:
        yield "logout", "the metadata has no end_session_endpoint"
        return
    for word, query in (
        ("client_id only", {"client_id": basic.id}),
        ("client_id and registered URI", {"client_id": basic.id, "post_logout_redirect_uri": uri}),
        ("client_id and unregistered URI", {"client_id": basic.id, "post_logout_redirect_uri": uri + "unregistered/"}),
        ("unknown client_id and registered URI", {"client_id": "nobody", "post_logout_redirect_uri": uri}),
        ("registered URI without client_id", {"post_logout_redirect_uri": uri}),
        ("nothing", {}),
    ):
        yield f"logout without session, {word}", end_of(endpoint, query, uri)
