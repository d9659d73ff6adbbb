"""A node of its own, on a data folder of its own, and its native API."""

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_S_MAX = 30
DRAIN_S_MAX = 30


class Node:
    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.port = 0
        self.keys = {}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self.binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", self.folder / "data"]
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + READY_S_MAX
        while not self.ready():
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < until, f"the node was not ready within {READY_S_MAX} s:\n{self.log()}"
            time.sleep(0.05)

    def ready(self) -> bool:
        if self.port == 0:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log())
            if not found:
                return False
            self.port = int(found[1])
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """Asks the node to drain, as an operator would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(DRAIN_S_MAX)
            assert code == 0, f"the drain ended with {code}:\n{self.log()}"

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def operator(self) -> str:
        """The key that the first start makes."""
        return (self.folder / "data" / "operator.key").read_text().strip()

    def key_for(self, namespace: str, name: str) -> str:
        """A key of the service itself: it covers no other one."""
        service = f"{namespace}/{name}"
        if service not in self.keys:
            self.keys[service] = self.call("POST", "/api/v1/keys", {"kind": "service", "service": service})["key"]
        return self.keys[service]

    def twin(self, namespace: str, name: str) -> dict:
        return self.call("GET", f"/api/v1/twins/{namespace}/{name}?behaviour=true")

    def call(self, method: str, path: str, body: dict | None = None, raw: bytes | None = None) -> dict:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=raw if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {self.operator()}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
