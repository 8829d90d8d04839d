"""The real program with its embedded stores, its command line and its gRPC API."""

import json
import pathlib
import queue
import re
import secrets
import subprocess
import sys
import threading
import urllib.parse

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PATIENCE_SECONDS = 60


def load_api(proto, folder):
    """Compiles the contract, and returns its messages and its client of the LoginService."""
    files = [str(path) for path in pathlib.Path(proto).rglob("*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    if protoc.main(["", f"-I{proto}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]):
        raise SystemExit("the contract doesn't compile")
    sys.path.insert(0, str(folder))
    from peerpanda.sso.v1 import login_pb2, login_pb2_grpc

    return login_pb2, login_pb2_grpc.LoginServiceStub


class Service:
    def __init__(self, program, proto, work, public):
        self.program, self.work, self.public = program, pathlib.Path(work), public
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(work)}
        key = subprocess.run([program, "keys", "generate"], capture_output=True, text=True, check=True,
                             env=self.environment).stdout.strip()
        serve = {
            "SSO_LISTEN": "127.0.0.1:0", "SSO_ADMIN_LISTEN": "127.0.0.1:0", "SSO_ALLOW_INSECURE_PROVIDERS": "true",
            "SSO_PUBLIC_URL": public, "SSO_DATABASE_URL": f"sqlite://{self.work}/sso.db", "SSO_ENCRYPTION_KEYS": key,
        }
        self.process = subprocess.Popen([program, "serve"], env=self.environment | serve, cwd=work,
                                        stderr=subprocess.PIPE, text=True)
        self.log, ports = [], queue.Queue()
        threading.Thread(target=self._read, args=(ports,), daemon=True).start()
        try:
            login, self.admin = (f"127.0.0.1:{port}" for port in ports.get(timeout=PATIENCE_SECONDS))
        except queue.Empty:
            self.stop()
            raise SystemExit("the program does not listen:\n" + "".join(self.log[-20:])) from None
        folder = self.work / "api"
        folder.mkdir()
        self.messages, stub = load_api(proto, folder)
        self.channel = grpc.insecure_channel(login)
        self.login = stub(self.channel)

    def _read(self, ports):
        found = {}
        for line in self.process.stderr:
            self.log.append(line)
            for name in ("login", "admin"):
                match = re.search(rf'{name}\.address"?[=:]\s*"?127\.0\.0\.1:(\d+)', re.sub(r"\x1b\[[\d;]*m", "", line))
                if match and name not in found:
                    found[name] = match[1]
                    if len(found) == 2:
                        ports.put((found["login"], found["admin"]))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments, secret=None):
        """Runs `peerpanda-sso connection …`; a secret goes to its standard input. Returns exit code, output and errors."""
        command = [self.program, "connection", *arguments, "--endpoint", f"http://{self.admin}"]
        if secret is not None:
            command += ["--client-secret-file", "-"]
        done = subprocess.run(command, input=secret, capture_output=True, text=True, env=self.environment,
                              timeout=PATIENCE_SECONDS * 2)
        return done.returncode, done.stdout, done.stderr

    def must(self, *arguments, secret=None):
        code, out, errors = self.run(*arguments, secret=secret)
        if code:
            raise Failed(f"connection {' '.join(arguments)}: {errors or out}")
        return out

    def create(self, slug, discovery_url, client_id, secret, method, *more):
        self.must("create", slug, "--discovery-url", discovery_url, "--client-id", client_id,
                  "--token-endpoint-auth-method", method, *more, secret=secret)

    def check(self, slug, *changes, secret=None):
        """The results of `check`, by id."""
        _, out, errors = self.run("check", slug, "--output", "json", *changes, secret=secret)
        try:
            answer = json.loads(out)
        except ValueError:
            raise Failed(f"check {slug}: {errors or out}") from None
        return {result["id"]: result for result in answer["results"]}

    def attempts(self, slug):
        """The account's login attempts, newest first."""
        return json.loads(self.must("attempts", slug, "--output", "json"))["attempts"]

    def begin(self, slug):
        """Returns where to send the browser, and the binding of the browser."""
        binding = secrets.token_urlsafe(24)
        request = self.messages.BeginLoginRequest(slug=slug, browser_binding=binding)
        return self.call(self.login.BeginLogin, request).redirect_url, binding

    def complete(self, slug, callback, binding):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(callback).query))
        known = {name: query[name] for name in ("code", "state", "iss", "error", "error_description") if name in query}
        request = self.messages.CompleteLoginRequest(slug=slug, browser_binding=binding, **known)
        return self.call(self.login.CompleteLogin, request)

    def logout_url(self, slug, id_token, state):
        return self.call(self.login.LogoutUrl, self.messages.LogoutUrlRequest(slug=slug, id_token_hint=id_token, state=state))

    @staticmethod
    def call(method, request):
        try:
            return method(request, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            raise Refused(error) from None


class Failed(Exception):
    """A command of the program failed."""


class Refused(Exception):
    """A call was refused: with the reason, and the cause and the owner in its metadata."""

    def __init__(self, error):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.text, info = error.details(), error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            if detail.Unpack(info):
                break
        self.reason, self.metadata = info.reason, dict(info.metadata)
