"""Ory Hydra, built from its Go module. It has no pages of its own: the login, consent and logout app is here."""

import html
import http.server
import threading
import urllib.parse

from idp import PERSON

TITLE = "Ory Hydra 2.3.0"
# It refuses every post-logout redirect URI without an ID token, registered or not.
UNDECIDED = {"logout.endpoint": "always"}
CLAIMS = {"email": PERSON["email"], "email_verified": True, "given_name": PERSON["given"], "family_name": PERSON["family"]}


def install(ground):
    program = ground.cache / "hydra-2.3.0"
    if not program.exists():
        # go.mod has the replacement of Hydra's own go.mod, without which it can't be built.
        ground.install("go", "build", "-tags", "sqlite,sqlite_omit_load_extension,hsm_disabled", "-o", program,
                       "github.com/ory/hydra/v2", cwd=ground.folder)
    return program


def start(ground, clients):
    program = install(ground)
    public, admin = (f"http://localhost:{ground.free_port()}" for _ in range(2))
    pages = start_pages(ground, admin)
    ground.start(program, "serve", "all", "--dev", "--sqa-opt-out", env={
        "DSN": "memory", "SECRETS_SYSTEM": PERSON["password"], "LOG_LEVEL": "error", "URLS_SELF_ISSUER": public,
        "URLS_LOGIN": f"{pages}/login", "URLS_CONSENT": f"{pages}/consent", "URLS_LOGOUT": f"{pages}/logout",
        "SERVE_PUBLIC_HOST": "127.0.0.1", "SERVE_PUBLIC_PORT": public.rsplit(":", 1)[1],
        "SERVE_ADMIN_HOST": "127.0.0.1", "SERVE_ADMIN_PORT": admin.rsplit(":", 1)[1],
    })
    ground.wait_for(f"{admin}/health/ready")
    for client in clients:
        ground.call("POST", f"{admin}/admin/clients", {
            "client_id": client.id, "client_secret": client.secret, "token_endpoint_auth_method": client.method,
            "redirect_uris": client.redirect_uris, "post_logout_redirect_uris": client.post_logout_uris,
            "grant_types": ["authorization_code"], "response_types": ["code"], "scope": "openid email profile",
        })
    return public


def start_pages(ground, admin):
    """Serves the pages in this process, and returns their origin."""

    def accept(kind, challenge, body=None):
        url = f"{admin}/admin/oauth2/auth/requests/{kind}"
        return ground.call("PUT", f"{url}/accept?{kind}_challenge={challenge}", body)["redirect_to"]

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind = self.path.split("?")[0].strip("/")
            challenge = self.fields(urllib.parse.urlsplit(self.path).query).get(f"{kind}_challenge")
            if not challenge:
                # Hydra shows its own errors here, too, if it is not told a page for them.
                return self.answer(404, "no challenge")
            inputs = '<input name="username"><input name="password" type="password">' if kind == "login" else ""
            form = f'<form method="post"><input type="hidden" name="challenge" value="{html.escape(challenge)}">{inputs}'
            return self.answer(200, f"<html><body>{kind}{form}<button>Continue</button></form></body></html>")

        def do_POST(self):
            kind = self.path.split("?")[0].strip("/")
            fields = self.fields(self.rfile.read(int(self.headers["Content-Length"])).decode())
            challenge = fields["challenge"]
            if kind == "login":
                if (fields["username"], fields["password"]) != (PERSON["name"], PERSON["password"]):
                    return self.answer(401, "wrong password")
                to = accept(kind, challenge, {"subject": PERSON["name"]})
            elif kind == "consent":
                request = ground.call("GET", f"{admin}/admin/oauth2/auth/requests/consent?consent_challenge={challenge}")
                to = accept(kind, challenge, {"grant_scope": request["requested_scope"], "session": {"id_token": CLAIMS}})
            else:
                to = accept(kind, challenge)
            self.send_response(303)
            self.send_header("Location", to)
            self.end_headers()

        def answer(self, status, page):
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        @staticmethod
        def fields(encoded):
            return dict(urllib.parse.parse_qsl(encoded))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ground.servers.append(server)
    return f"http://localhost:{server.server_port}"
