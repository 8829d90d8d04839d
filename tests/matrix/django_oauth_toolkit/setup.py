"""django-oauth-toolkit, from PyPI, in a Django project of one file."""

import dataclasses
import json
import sys

from idp import PERSON

VERSION = "3.4.1"
TITLE = f"django-oauth-toolkit {VERSION}"
# It accepts basic and post from every client.
ENFORCES_METHOD = False


def install(ground):
    venv = ground.cache / f"venv-{VERSION}"
    if not (venv / ".ready").exists():
        ground.install(sys.executable, "-m", "venv", venv)
        ground.install(venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                       f"django-oauth-toolkit=={VERSION}", "Django==5.2.19", "oauthlib==4.0.1")
        (venv / ".ready").touch()
    return venv / "bin" / "python"


def start(ground, clients):
    python, port = install(ground), ground.free_port()
    made = json.dumps({"person": PERSON, "clients": [dataclasses.asdict(client) for client in clients]})
    ground.start(python, ground.folder / "server.py", str(port), made)
    return f"http://localhost:{port}/o"
