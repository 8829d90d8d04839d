"""Keycloak, from its distribution in Maven Central."""

import zipfile

from idp import PERSON

VERSION = "26.7.3"
TITLE = f"Keycloak {VERSION}"
# It accepts basic and post from every client.
ENFORCES_METHOD = False


def install(ground):
    home = ground.cache / f"keycloak-{VERSION}"
    ready = home / ".built"
    if not ready.exists():
        name = f"keycloak-quarkus-dist-{VERSION}.zip"
        ground.install("mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
                       f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip",
                       f"-DoutputDirectory={ground.cache}")
        with zipfile.ZipFile(ground.cache / name) as archive:
            archive.extractall(ground.cache)
        (ground.cache / name).unlink()
        # Once, so that a start takes seconds.
        ground.install("bash", home / "bin" / "kc.sh", "build", "--db=dev-mem", "--cache=local")
        ready.touch()
    return home


def start(ground, clients):
    home, port = install(ground), ground.free_port()
    root = f"http://localhost:{port}"
    admin = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": PERSON["password"]}
    ground.start("bash", home / "bin" / "kc.sh", "start", "--optimized", "--http-enabled=true", f"--http-port={port}",
                 "--http-host=127.0.0.1", f"--hostname={root}", "--http-management-host=127.0.0.1",
                 f"--http-management-port={ground.free_port()}", env=admin)
    ground.wait_for(f"{root}/realms/master/.well-known/openid-configuration")
    login = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": PERSON["password"]}
    token = ground.call("POST", f"{root}/realms/master/protocol/openid-connect/token", login, form=True)
    realm = {
        "realm": "customer", "enabled": True, "sslRequired": "none",
        "clients": [{
            "clientId": client.id, "secret": client.secret, "redirectUris": client.redirect_uris,
            "attributes": {"post.logout.redirect.uris": "##".join(client.post_logout_uris)},
        } for client in clients],
        "users": [{
            "username": PERSON["name"], "email": PERSON["email"], "emailVerified": True, "enabled": True,
            "firstName": PERSON["given"], "lastName": PERSON["family"],
            "credentials": [{"type": "password", "value": PERSON["password"]}],
        }],
    }
    ground.call("POST", f"{root}/admin/realms", realm, token["access_token"])
    return f"{root}/realms/customer"
