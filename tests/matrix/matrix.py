"""Runs the program against real IdPs, and prints what it says of right and wrong set-ups. Called by tests/matrix/run."""

import argparse
import importlib.util
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

from answers import answers
from idp import Client, Ground
from rows import ODD_SECRET, Matrix
from service import Service

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "idps.md"
PUBLIC = "http://localhost:8080"
SECRET = "Xo2r9-secret-of-the-matrix-4711"
MAX_TEXT = 1000
# Of a table, before its first row.
HEAD_LINES = 4


def clients():
    """What the customer's IdP admin registers. One client has the URIs of the accounts with something wrong, too."""

    def home(slug):
        return f"{PUBLIC}/app/accounts/oidc/{slug}/login/"

    def client(slug, secret, method, *others):
        homes = [home(name) for name in (slug, *others)]
        return Client(slug, secret, method, [f"{uri}callback/" for uri in homes], homes)

    wrong = ["wrong-secret", "wrong-method", "wrong-issuer", "wrong-redirect-uri", "wrong-logout-uri"]
    by_basic = client("by-basic", f"{SECRET}-b", "client_secret_basic", *wrong)
    by_basic.redirect_uris.remove(f"{home('wrong-redirect-uri')}callback/")
    by_basic.post_logout_uris.remove(home("wrong-logout-uri"))
    return [by_basic, client("by-post", f"{SECRET}-p", "client_secret_post"), client("odd", ODD_SECRET, "client_secret_basic")]


def load(name):
    path = pathlib.Path(__file__).parent / name / "setup.py"
    if not path.exists():
        raise SystemExit(f"{name} is not an IdP of the matrix: choose from {', '.join(known())}")
    spec = importlib.util.spec_from_file_location(f"setup_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def known():
    return sorted(path.parent.name for path in pathlib.Path(__file__).parent.glob("*/setup.py"))


def run(name, options, work):
    """Prints the IdP's rows, and returns how many are not as they must be, and the table."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "peerpanda-sso" / "matrix"
    setup, ground, registered = load(name), Ground(name, cache, work), clients()
    service, begun = None, time.monotonic()
    try:
        issuer = setup.start(ground, registered).rstrip("/")
        metadata = ground.wait_for(f"{issuer}/.well-known/openid-configuration")
        print(f"\n## {setup.TITLE} (started in {time.monotonic() - begun:.0f} s)\n", flush=True)
        if options.answers:
            for sent, said in answers(metadata, *registered):
                print(f"- {sent}: {said}".replace(issuer, "ISSUER"), flush=True)
            return 0, []
        folder = ground.work / "service"
        folder.mkdir()
        service = Service(options.program, ROOT / "proto", folder, PUBLIC)
        table, faults = [f"{setup.TITLE}:", "", "| Set-up | | Outcome | Who acts | What the program says |", "|---|---|---|---|---|"], 0
        for row in Matrix(setup, service, PUBLIC, issuer, registered).rows():
            text = plain(row.text, issuer)
            line = f"| {row.title} | {row.subject} | {row.outcome} | {row.actor.lower()} | {text} |"
            table.append(line)
            print(line if not row.fault else f"{line}\n  NOT RIGHT: {row.fault}", flush=True)
            faults += bool(row.fault)
        return faults, table
    except BaseException:
        print(ground.log()[-4000:], file=sys.stderr)
        raise
    finally:
        if service:
            service.stop()
        ground.stop()


def plain(text, issuer):
    """The text for a table: without what differs from run to run."""
    origin = re.match(r"https?://[^/]+", issuer)[0]
    text = text.replace(issuer, "ISSUER").replace(origin, "ORIGIN").replace(origin.split("//")[1], "HOST")
    # A made-up URI; a state; a trace id.
    text = re.sub(r"(?<=unregistered-)\w{8}\b|\b[\w-]{43}\b|\b[0-9a-f]{32}\b", "…", text)
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def is_documented(name, table, writes):
    """Whether docs/idps.md has this table, after writing it there if asked to."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = DOCUMENT.read_text()
    head, rest = text.split(begin)
    new = head + begin + "\n".join(["", *table, "", ""]) + end + rest.split(end, 1)[1]
    if writes:
        DOCUMENT.write_text(new)
    return writes or new == text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="IdPs; all without one")
    parser.add_argument("--program", required=True, help="peerpanda-sso")
    parser.add_argument("--answers", action="store_true", help="print what the IdP itself answers to right and wrong requests")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/idps.md")
    options = parser.parse_args()
    # The servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    wrong = rows = stale = 0
    for name in options.names or known():
        with tempfile.TemporaryDirectory() as work:
            faults, table = run(name, options, work)
        wrong += faults
        rows += max(len(table) - HEAD_LINES, 0)
        if table and not is_documented(name, table, options.write):
            print(f"\n{DOCUMENT.name} has another table: tests/matrix/run --write {name} accepts this one")
            stale += 1
    if not options.answers:
        print(f"\n{rows - wrong} passed, {wrong} failed")
    return 1 if wrong or stale else 0


sys.exit(main())
