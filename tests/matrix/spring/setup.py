"""Spring Authorization Server, from Maven Central, as Spring Boot sets it up."""

import hashlib
import json
import shutil

from idp import PERSON

TITLE = "Spring Authorization Server 7.0.6"
# Without a session it shows its login page in place of every error that it can't send to a registered redirect URI.
UNDECIDED = {"client.redirect_uri": "if wrong", "logout.endpoint": "always"}
SOURCES = ("pom.xml", "src/main/java/matrix/Server.java")


def install(ground):
    digest = hashlib.sha256(b"".join((ground.folder / name).read_bytes() for name in SOURCES)).hexdigest()
    program = ground.cache / f"server-{digest[:16]}.jar"
    if not program.exists():
        built = ground.work / "build"
        for name in SOURCES:
            (built / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ground.folder / name, built / name)
        ground.install("mvn", "-q", "-B", "package", cwd=built)
        shutil.move(built / "target" / "spring-1.jar", program)
    return program


def start(ground, clients):
    program, port = install(ground), ground.free_port()
    issuer = f"http://localhost:{port}"
    registered = {client.id: {
        "registration": {
            "client-id": client.id, "client-secret": "{noop}" + client.secret, "scopes": ["openid", "email", "profile"],
            "client-authentication-methods": [client.method], "authorization-grant-types": ["authorization_code"],
            "redirect-uris": client.redirect_uris, "post-logout-redirect-uris": client.post_logout_uris,
        },
        "require-authorization-consent": True,
    } for client in clients}
    settings = {
        "server": {"port": port, "address": "127.0.0.1"},
        "spring": {"security": {
            "user": {"name": PERSON["name"], "password": PERSON["password"]},
            "oauth2": {"authorizationserver": {"issuer": issuer, "client": registered}},
        }},
    }
    ground.start("java", "-jar", program, env={
        "SPRING_APPLICATION_JSON": json.dumps(settings), "PERSON_EMAIL": PERSON["email"],
        "PERSON_GIVEN": PERSON["given"], "PERSON_FAMILY": PERSON["family"],
    })
    return issuer
