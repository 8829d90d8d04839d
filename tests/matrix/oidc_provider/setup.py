"""oidc-provider, from npm: the certified OpenID Provider that other tests use as well."""

import json
import re
import time

TITLE = "oidc-provider 8.8.1"
# It accepts basic and post from every client.
ENFORCES_METHOD = False
# Of whoever logs in, as tests/provider makes it.
IDENTITY = ("grace@example.com", "grace", "Provider")


def install(ground):
    folder = ground.folder.parent.parent / "provider"
    if not (folder / "node_modules" / "oidc-provider" / "package.json").exists():
        ground.install("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)
    return folder


def start(ground, clients):
    folder = install(ground)
    registered = [{
        "client_id": client.id, "client_secret": client.secret, "token_endpoint_auth_method": client.method,
        "redirect_uris": client.redirect_uris, "post_logout_redirect_uris": client.post_logout_uris,
    } for client in clients]
    process = ground.start("node", folder / "server.js", json.dumps(registered))
    while process.poll() is None:
        found = re.search(r"^http\S+$", ground.log(), re.MULTILINE)
        if found:
            return found[0]
        time.sleep(0.1)
    raise SystemExit(f"{ground.name} does not start:\n{ground.log()}")
