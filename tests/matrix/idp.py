"""What every IdP of the matrix is given, and what it must give back."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

START_SECONDS = 180
STOP_SECONDS = 20
# Whoever logs in: no IdP of the matrix accepts another password.
PERSON = {"name": "grace", "email": "grace@customer.example", "given": "Grace", "family": "Hopper",
          "password": "correct-Horse-7-battery"}


@dataclass
class Client:
    """A client to register."""

    id: str
    secret: str
    method: str  # client_secret_basic or client_secret_post
    redirect_uris: list
    post_logout_uris: list


class Ground:
    """Where an IdP runs: its cache, its temporary folder, its processes and a free port."""

    def __init__(self, name, cache, work):
        self.name = name
        self.folder = pathlib.Path(__file__).parent / name
        self.cache = pathlib.Path(cache) / name
        self.work = pathlib.Path(work) / name
        self.cache.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.processes, self.servers = [], []

    @staticmethod
    def free_port():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return listener.getsockname()[1]

    def install(self, *command, cwd=None, env=None):
        """Runs a package manager's command; its output is shown only if it fails."""
        log = self.work / "install.log"
        with log.open("w") as out:
            done = subprocess.run([str(part) for part in command], cwd=cwd or self.cache, stdout=out, stderr=out,
                                  stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        if done.returncode:
            raise SystemExit(f"{self.name}: {command[0]} failed\n{log.read_text()[-4000:]}")

    def start(self, *command, cwd=None, env=None):
        """Starts a server of this IdP. Its output goes to a file, which `fail` shows."""
        log = (self.work / "server.log").open("ab")
        process = subprocess.Popen([str(part) for part in command], cwd=cwd or self.work, stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True)
        self.processes.append(process)
        return process

    def log(self):
        path = self.work / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, url):
        """Waits until the server answers this URL with 200."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return json.loads(answer.read() or "{}")
            except (OSError, ValueError) as error:
                failure = error
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes):
                raise SystemExit(f"{self.name} does not start: {url}: {failure}\n{self.log()[-4000:]}")
            time.sleep(0.2)

    @staticmethod
    def call(method, url, body=None, token=None, form=False):
        """Calls an IdP's management API."""
        headers = {"Content-Type": "application/x-www-form-urlencoded" if form else "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = (urllib.parse.urlencode(body) if form else json.dumps(body)).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
        return json.loads(text) if text else None

    def stop(self):
        for server in self.servers:
            server.shutdown()
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
