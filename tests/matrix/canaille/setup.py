"""Canaille, from PyPI, with its store in memory."""

import dataclasses
import json
import sys

from idp import PERSON

VERSION = "0.3.6"
TITLE = f"Canaille {VERSION}"
# It asks the person first, whatever the post-logout redirect URI is.
UNDECIDED = {"logout.endpoint": "always"}
# It reads HTTP Basic as it is, without the form encoding of RFC 6749.
DECODES_BASIC = False


def install(ground):
    venv = ground.cache / f"venv-{VERSION}"
    if not (venv / ".ready").exists():
        ground.install(sys.executable, "-m", "venv", venv)
        ground.install(venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                       f"canaille[oidc,front]=={VERSION}", "Authlib==1.9.10")
        (venv / ".ready").touch()
    return venv / "bin" / "python"


def start(ground, clients):
    python, port = install(ground), ground.free_port()
    made = json.dumps({"person": PERSON, "clients": [dataclasses.asdict(client) for client in clients]})
    ground.start(python, ground.folder / "server.py", str(port), made)
    return f"http://localhost:{port}"
