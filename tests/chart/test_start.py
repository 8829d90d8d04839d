"""Starts the program as the rendered Deployment would: with its arguments, its variables and its files, on loopback."""

import json
import pathlib
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from test_chart import BUNDLES, PROGRAM, bundle, container_of, manifests, of_kind

PATIENCE = 30


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE, **options).stdout


@pytest.fixture(scope="session")
def secrets(tmp_path_factory):
    """What an operator puts into the Secrets and ConfigMaps: the last part of a variable's name -> content."""
    folder = tmp_path_factory.mktemp("made")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", str(key), "-out", str(certificate))
    token = run(PROGRAM, "tokens", "generate").split("token_sha256: ")[1].strip()
    return {
        # Nothing answers there, which the program survives: it is not ready, and tries again.
        "DATABASE_URL": "postgres://sso:secret@database.invalid/sso?sslmode=verify-full",
        "REDIS_URL": "rediss://sso:secret@redis.invalid/0",
        "ENCRYPTION_KEYS": run(PROGRAM, "keys", "generate"),
        "CALLERS": f'[[caller]]\nname = "web"\nroles = ["login"]\ntoken_sha256 = ["{token}"]\n',
        "TLS_CERT": certificate.read_text(),
        "TLS_KEY": key.read_text(),
        "TLS_CLIENT_CA": certificate.read_text(),
        "REDIS_CA": certificate.read_text(),
        "PROVIDER_CA": certificate.read_text(),
    }


def deployed(found, folder, secrets):
    """The container's command and variables, with its mounted files and its volume in this folder."""
    container = container_of(found)
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    variables = {}
    for entry in container["env"]:
        name, value = entry["name"], entry["value"]
        for mount in mounts:
            if mount in value:
                local = folder / mount.strip("/")
                local.mkdir(parents=True, exist_ok=True)
                value = value.replace(mount, str(local))
        if name.startswith("SSO_") and name.endswith("_FILE"):
            pathlib.Path(value).write_text(secrets[name.removeprefix("SSO_").removesuffix("_FILE")])
        variables[name] = value
    return [PROGRAM, *container["args"]], variables


class Service:
    """The running program and the addresses that it logs."""

    def __init__(self, command, variables, folder):
        loopback = {name: "127.0.0.1:0" for name in variables if name.endswith("_LISTEN") and name != "SSO_ALLOW_INSECURE_LISTEN"}
        self.process = subprocess.Popen(command, env=variables | loopback, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.log, lines = [], queue.Queue()

        def read():
            for line in self.process.stderr:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            line = lines.get(timeout=PATIENCE)
            assert line is not None, self.log
            self.log.append(line)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message") == "listening":
                break
        self.ports = {name: int(event[f"{name}.address"].rsplit(":", 1)[1]) for name in ("login", "admin", "metrics")}

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}{path}", timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path, secrets):
    services = []

    def start(found):
        services.append(Service(*deployed(found, tmp_path, secrets), tmp_path))
        return services[-1]

    yield start
    for service in services:
        service.process.kill()


def ask_health(found, service, ca=None):
    """Runs the commands of `helm test` against the program: service -> exit code."""
    codes = {}
    for container in of_kind(found, "Pod")[0]["spec"]["containers"]:
        port = service.ports["login" if container["name"] == "login-service" else "admin"]
        scheme = next(argument for argument in container["args"] if argument.startswith("--endpoint=")).split("=")[1].split(":")[0]
        arguments = [argument for argument in container["args"] if not argument.startswith(("--endpoint=", "--ca-file="))]
        arguments += [f"--endpoint={scheme}://localhost:{port}"] + ([f"--ca-file={ca}"] if ca else [])
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE)
        codes[container["name"]] = (done.returncode, done.stdout + done.stderr)
    return codes


def test_the_development_release_starts_and_keeps_its_key_and_its_database(start, tmp_path):
    found = manifests(bundle("dev"))
    service = start(found)
    deadline = time.monotonic() + PATIENCE
    while service.get("/readyz") != 200:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.05)
    assert service.get("/livez") == 200
    assert all(code == 0 for code, _ in ask_health(found, service).values())
    assert service.stop() == 0
    data = tmp_path / "var" / "lib" / "peerpanda-sso"
    key = (data / "sso.db.key").read_text()
    assert (data / "sso.db").exists() and len(key.strip()) == 44
    # As the container restarts in the same pod.
    again = start(found)
    assert again.get("/livez") == 200 and again.stop() == 0
    assert (data / "sso.db.key").read_text() == key


def test_the_production_release_waits_for_its_stores(start, tmp_path):
    found = manifests(bundle("production"))
    service = start(found)
    assert service.get("/livez") == 200
    assert service.get("/readyz") == 503, "neither store answers"
    ca = tmp_path / "etc" / "peerpanda-sso" / "tls-cert-file" / "tls.crt"
    for code, said in ask_health(found, service, ca).values():
        assert code == 1, f"answers over TLS, and not SERVING: {said}"
    assert service.stop() == 0


@pytest.mark.parametrize("name", BUNDLES)
def test_the_program_accepts_the_settings_of_the_release(name, tmp_path, secrets):
    """With the real listeners. The program binds that of the metrics first, which is in use here, so it never listens."""
    command, variables = deployed(manifests(bundle(name)), tmp_path, secrets)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for refused in [False, True]:
            if refused:
                variables = {variable: value for variable, value in variables.items() if variable not in ("SSO_ALLOW_INSECURE_LISTEN", "SSO_CALLERS_FILE")}
            done = subprocess.run(command, env=variables | {"SSO_METRICS_LISTEN": address}, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE)
            assert done.returncode == 1
            assert ("invalid settings" in done.stderr) == refused, done.stderr
            assert refused or f"listen on {address}" in done.stderr, done.stderr
            weak = re.findall(r'"message":"insecure setting: ([^"]+)', done.stderr)
            assert refused or bool(weak) == (name in ("dev", "mesh")), weak
