#!/usr/bin/env python3
"""Peers over the network: what a durable virtual actor answers over HTTP, here and in workerd and Restate; and what an
idle one weighs, here and in Erlang.

    benches/peers/network/run.py --twin target/release/twin        # about eight minutes, on a machine without other work
    benches/peers/network/run.py --twin target/release/twin --seconds 2 --rounds 1 --idle 100000        # that it runs

Everybody gets the same load from the same generator (wrk with load.lua): 1,000 ids, one request at a time on each
connection. Laps alternate, and the ratio is taken within each round. Standard output has one JSON object a line,
standard error the table. It needs wrk and escript (Debian: wrk, erlang-base) and node with npm, and installs the peers
from npm into the target folder. Servers and load are on the loopback interface, and end before it does.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
IDS = 1000
CONNECTIONS = [16, 64]
READY_S_MAX = 60
END_S_MAX = 40
# What is measured first warms up: code is compiled, files grow.
WARM_S = 3


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tell(**fields) -> None:
    print(json.dumps(fields), flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(method: str, url: str, body: object = None, key: str = "") -> bytes:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        return answer.read()


class Process:
    """A server in its own session, with a log; ended with all it started."""

    all = []

    def __init__(self, name: str, command: list, folder: Path, environment: dict | None = None) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | (environment or {}),
                start_new_session=True,
            )
        Process.all.append(self)

    def until(self, ready) -> object:
        """Waits until `ready` answers something, and fails with the log if it does not."""
        until, why = time.monotonic() + READY_S_MAX, None
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if found := ready():
                    return found
            except urllib.error.HTTPError as error:
                why = f"{error}: {error.read().decode(errors='replace')}"
            except OSError as error:
                why = error
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not become ready ({why}):\n{self.log.read_text()[-4000:]}")

    def end(self) -> None:
        """Asks it to end; after that nobody of its session is left, whatever a wrapper of it did."""
        self.process.terminate()
        try:
            self.process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not end within {END_S_MAX} s")
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Target:
    """Who is measured, and with which request."""

    def __init__(self, who: str, keeps: str, url: str, method: str, path: str, key: str = "", body: str = "") -> None:
        self.who, self.keeps, self.url = who, keeps, url
        self.arguments = [method, path, key, body]

    def lap(self, connections: int, seconds: float) -> dict:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        ran = subprocess.run(
            [*command, "-s", str(HERE / "load.lua"), self.url, "--", *self.arguments],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        found = re.search(r"^\{.*\}$", ran.stdout, re.MULTILINE)
        if ran.returncode != 0 or not found:
            raise SystemExit(f"wrk against {self.who} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        lap = json.loads(found[0])
        return lap | {"rps": round(lap["requests"] / (lap["duration_us"] / 1e6), 1)}


def program(tools: Path, pattern: str) -> Path:
    """The program itself: what npm puts into `.bin` are wrappers of it."""
    found = sorted((tools / "node_modules").glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"npm has no '{pattern}' for this machine: {found}")
    return found[0]


def each_id(make) -> None:
    """Every id is there before anybody is measured."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(make, range(IDS)))


class Ours:
    def __init__(self, binary: Path, folder: Path) -> None:
        data = folder / "twin"
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--durability", "fsync", "--data-dir", data]
        self.process = Process("twin", command, folder)
        said = lambda: re.search(r"http://127\.0\.0\.1:\d+", self.process.log.read_text())
        self.url = self.process.until(said)[0]
        self.process.until(lambda: call("GET", f"{self.url}/readyz"))
        key = (data / "operator.key").read_text().strip()
        twin = lambda number: f"{self.url}/api/v1/twins/default/bench-{number}"
        attributes = {"attributes": {"owner": "payments", "tier": "gold"}}
        each_id(lambda number: call("PUT", twin(number), attributes, key))
        path = "/api/v1/twins/default/bench-%d"
        fsync = "fsync before the answer"
        self.read = Target("ours", "reads what is durable", self.url, "GET", f"{path}/attributes/owner", key)
        self.write = Target("ours", fsync, self.url, "PUT", f"{path}/features/sampling/desired", key, '{"rate": %d}')


class Workerd:
    def __init__(self, tools: Path, folder: Path) -> None:
        files = folder / "workerd"
        files.mkdir()
        memory, disk = free_port(), free_port()
        server = program(tools, "@cloudflare/workerd-*/bin/workerd")
        command = [server, "serve", HERE / "workerd.capnp", "--experimental"]
        command += [f"--socket-addr=memory=127.0.0.1:{memory}", f"--socket-addr=disk=127.0.0.1:{disk}"]
        command += [f"--directory-path=files={files}"]
        self.process = Process("workerd", command, folder)
        url = lambda port: f"http://127.0.0.1:{port}"
        for port in memory, disk:
            self.process.until(lambda: call("GET", f"{url(port)}/counter-0"))
            each_id(lambda number: call("POST", f"{url(port)}/counter-{number}", {}))
        name = "workerd, Durable Object"
        self.read = Target(f"{name} in memory", "nothing", url(memory), "GET", "/counter-%d")
        self.read_disk = Target(f"{name} on disk", "reads what it has in memory", url(disk), "GET", "/counter-%d")
        self.write = Target(f"{name} on disk", "fsync before the answer", url(disk), "POST", "/counter-%d", "", "%d")


class Restate:
    def __init__(self, tools: Path, folder: Path) -> None:
        # Node finds packages beside the program, and the tree stays as it is.
        shutil.copy(HERE / "restate.mjs", tools)
        handler, ingress, admin, node = (free_port() for _ in range(4))
        self.handler = Process("restate-handler", ["node", tools / "restate.mjs", handler], folder)
        environment = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        server = program(tools, "@restatedev/restate-server-*/bin/restate-server")
        command = [server, "--base-dir", folder / "restate", "--node-name", "bench"]
        self.process = Process("restate", command, folder, environment)
        self.process.until(lambda: call("GET", f"http://127.0.0.1:{admin}/health") is not None)
        deployment = {"uri": f"http://127.0.0.1:{handler}"}
        self.process.until(lambda: call("POST", f"http://127.0.0.1:{admin}/deployments", deployment))
        url = f"http://127.0.0.1:{ingress}"
        self.process.until(lambda: call("POST", f"{url}/counter/counter-0/add"))
        each_id(lambda number: call("POST", f"{url}/counter/counter-{number}/add"))
        journal = "journaled and synced before the answer"
        self.write = Target("Restate, handler of a virtual object", journal, url, "POST", "/counter/counter-%d/add")


def measure(row: str, ours: Target, peers: list, options: argparse.Namespace) -> list:
    """Laps in turns; one line for each peer, of which each has a bar or none, with the median of the rounds' ratios."""
    lines, targets = [], [ours, *(peer for peer, _ in peers)]
    for target in targets:
        target.lap(max(CONNECTIONS), options.warm)
    for connections in CONNECTIONS:
        laps = {target.who: [] for target in targets}
        for number in range(options.rounds):
            # Whoever was first is last the next time.
            for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
                lap = target.lap(connections, options.seconds)
                laps[target.who].append(lap)
                tell(row=row, connections=connections, round=number, who=target.who, keeps=target.keeps, **lap)
                say(f"{row} {connections} {target.who}: {lap['rps']:.0f}/s, {lap['failed']} failed")
        for peer, bar in peers:
            pairs = zip(laps[ours.who], laps[peer.who])
            ratio = statistics.median(mine["rps"] / max(theirs["rps"], 1e-9) for mine, theirs in pairs)
            middle = lambda who, what: statistics.median(lap[what] for lap in laps[who])
            failed = sum(lap["failed"] for who in (ours.who, peer.who) for lap in laps[who])
            line = {
                "row": row,
                "connections": connections,
                "peer": peer.who,
                "peer_keeps": peer.keeps,
                "ours": middle(ours.who, "rps"),
                "theirs": middle(peer.who, "rps"),
                "ours_p50_us": middle(ours.who, "p50_us"),
                "theirs_p50_us": middle(peer.who, "p50_us"),
                "ours_p99_us": middle(ours.who, "p99_us"),
                "theirs_p99_us": middle(peer.who, "p99_us"),
                "ratio": round(ratio, 2),
                "failed": failed,
                "bar": bar and f">= {bar:g}",
                # A server that refuses is quick: with failures the figure says nothing.
                "met": bar and ratio >= bar and failed == 0,
            }
            lines.append(line)
            tell(**line)
    return lines


def idle(options: argparse.Namespace) -> list:
    """Bytes of an idle twin of a million, beside an idle process."""
    ran = subprocess.run([options.twin, "bench", "W5", "--json"], capture_output=True, text=True, timeout=600)
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    ours = next((line["ours_bytes"] for line in found if line.get("ours_bytes")), None)
    if ours is None:
        raise SystemExit(f"twin bench W5 ended with {ran.returncode} and said no bytes:\n{ran.stdout}{ran.stderr}")
    lines = []
    for form, bar in ("plain", 0.15), ("hibernated", None), ("raw", None):
        command = ["escript", str(HERE / "idle.escript"), form, str(options.idle)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if ran.returncode != 0:
            raise SystemExit(f"escript ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        theirs = int(ran.stdout)
        name = {"plain": "Erlang gen_server", "hibernated": "Erlang gen_server, hibernated", "raw": "Erlang process"}
        line = {
            "row": "idle, bytes",
            "peer": name[form],
            "peer_keeps": "nothing",
            "count": options.idle,
            "ours": ours,
            "theirs": theirs,
            "ratio": round(ours / theirs, 3),
            "bar": bar and f"<= {bar:g}",
            "met": bar and ours <= bar * theirs,
        }
        lines.append(line)
        tell(**line)
    return lines


def install(tools: Path) -> None:
    """What package-lock.json names, and none of its scripts."""
    tools.mkdir(parents=True, exist_ok=True)
    for name in "package.json", "package-lock.json":
        shutil.copy(HERE / name, tools)
    lock, done = (HERE / "package-lock.json").read_text(), tools / "node_modules/.installed"
    if not done.exists() or done.read_text() != lock:
        say(f"installing the peers into {tools}")
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(command, cwd=tools, check=True, stdout=sys.stderr)
        done.write_text(lock)


def table(lines: list) -> None:
    heads = ["row", "connections", "ours", "peer", "theirs", "ours ÷ theirs", "p50 µs, both", "p99 µs, both", "bar"]
    say(f"\n| {' | '.join(heads)} |")
    say("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        bar = "–" if line["bar"] is None else f"{'✓' if line['met'] else '✗'} {line['bar']}"
        of = lambda who, what: f"{line[f'{who}_{what}']:.0f}" if f"{who}_{what}" in line else "–"
        both = lambda what: f"{of('ours', what)} / {of('theirs', what)}"
        peer = line["peer"] + (f" ({line['failed']} FAILED)" if line.get("failed") else "")
        say(
            f"| {line['row']} | {line.get('connections', '–')} | {line['ours']:.0f} | {peer} | {line['theirs']:.0f} "
            f"| {line['ratio']} | {both('p50_us')} | {both('p99_us')} | {bar} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=Path, required=True, help="a release build")
    parser.add_argument("--seconds", type=int, default=10, help="of a lap")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=WARM_S, help="seconds of a lap that does not count, one for each")
    parser.add_argument("--idle", type=int, default=1_000_000, help="processes of Erlang; 0 leaves the row out")
    parser.add_argument("--dir", type=Path, help="where stores are put; in memory a durable figure says nothing")
    options = parser.parse_args()
    options.twin = options.twin.resolve()
    for tool in ["wrk", "node", "npm"] + (["escript"] if options.idle else []):
        if not shutil.which(tool):
            raise SystemExit(f"'{tool}' is not here (Debian: apt-get install wrk erlang-base nodejs npm)")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    tools = target / "tools/network-peers"
    install(tools)
    lines = []
    # Beside the build, and not where files may be kept in memory.
    with tempfile.TemporaryDirectory(prefix="network-peers-", dir=options.dir or target) as folder:
        try:
            ours = Ours(options.twin, Path(folder))
            workerd = Workerd(tools, Path(folder))
            restate = Restate(tools, Path(folder))
            lines += measure("read", ours.read, [(workerd.read, 10), (workerd.read_disk, 10)], options)
            lines += measure("durable", ours.write, [(restate.write, 10), (workerd.write, None)], options)
        finally:
            for process in Process.all:
                process.end()
    if options.idle:
        lines += idle(options)
    table(lines)


if __name__ == "__main__":
    main()
