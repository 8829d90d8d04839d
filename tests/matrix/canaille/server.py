"""Canaille with one person and some clients. Arguments: a port, and the person and the clients as JSON."""

import json
import logging
import sys

# This folder has the name of the package.
sys.path.pop(0)

from canaille import create_app  # noqa: E402
from canaille.app import models  # noqa: E402
from canaille.backends import Backend  # noqa: E402
from werkzeug.serving import run_simple  # noqa: E402

port, made = int(sys.argv[1]), json.loads(sys.argv[2])
app = create_app({
    "SECRET_KEY": "of one run", "SERVER_NAME": f"localhost:{port}", "PREFERRED_URL_SCHEME": "http",
    "CANAILLE": {"DATABASE": "memory", "JAVASCRIPT": False, "HTMX": False, "SMTP": None, "CAPTCHA_ENABLED": False},
    "CANAILLE_OIDC": {"ENABLE_OIDC": True},
})
person = made["person"]
with app.app_context(), Backend.instance.session():
    Backend.instance.save(models.User(
        user_name=person["name"], formatted_name=f"{person['given']} {person['family']}", given_name=person["given"],
        family_name=person["family"], emails=[person["email"]], password=person["password"]))
    for client in made["clients"]:
        made_client = models.Client(
            client_id=client["id"], client_secret=client["secret"], client_name=client["id"],
            token_endpoint_auth_method=client["method"], redirect_uris=client["redirect_uris"],
            post_logout_redirect_uris=client["post_logout_uris"], grant_types=["authorization_code"],
            response_types=["code"], scope=["openid", "email", "profile"])
        Backend.instance.save(made_client)
        # As its own form and its registration endpoint do: without an audience its ID tokens have an empty "aud".
        made_client.audience = [made_client]
        Backend.instance.save(made_client)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
run_simple("127.0.0.1", port, app, threaded=True)
