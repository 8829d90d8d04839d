"""Dex, built from its Go module, with its own database of passwords as the place where people are known."""

import json

from idp import PERSON

# The commit of its release 2.41.1: releases after 2.13 have no version that Go's tools accept.
TITLE = "Dex 2.41.1"
# It accepts basic and post from every client.
ENFORCES_METHOD = False
HAS_LOGOUT = False
# Its own people have one name, and log in by e-mail address.
OPTIONS = ["--given-name-claims", "name", "--family-name-claims", "name"]
NAME = f"{PERSON['given']} {PERSON['family']}"
IDENTITY = (PERSON["email"], NAME, NAME)
FIELDS = {"login": PERSON["email"]}
# bcrypt of PERSON's password.
HASH = "$2b$10$CNUQJMOHTso3Vot9/L.C6uWS3nKkfchQVX5G0efOe9zWYCrarK3ZK"


def install(ground):
    program = ground.cache / "dex-2.41.1"
    if not program.exists():
        ground.install("go", "build", "-o", program, "github.com/dexidp/dex/cmd/dex", cwd=ground.folder)
    return program


def start(ground, clients):
    program, port = install(ground), ground.free_port()
    issuer = f"http://localhost:{port}/dex"
    config = ground.work / "config.json"
    config.write_text(json.dumps({
        "issuer": issuer, "web": {"http": f"127.0.0.1:{port}"}, "storage": {"type": "memory"}, "logger": {"level": "error"},
        "enablePasswordDB": True,
        "staticPasswords": [{"email": PERSON["email"], "hash": HASH, "username": NAME,
                             "userID": PERSON["name"]}],
        "staticClients": [{"id": client.id, "name": client.id, "secret": client.secret,
                           "redirectURIs": client.redirect_uris} for client in clients],
    }))
    ground.start(program, "serve", config)
    return issuer
