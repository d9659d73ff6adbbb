"""Drives a real node with the unmodified SDKs of Dapr: a service that uses one runs against its twin as it is.

    tests/clients/dapr.py --twin target/debug/twin --only state metadata

Each row of the table is a client: an SDK in one of its kinds or protocols. Each column is a block of the API. A cell
is one scene, or several: programs in the client's language, each a service of its own with a key of its own. The
program in front checks itself and says what held; behind it there may be applications that the runtime calls. Without
`--only` the blocks run that BLOCKS says are served; `--all` runs the others, too.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import seed
from node import Node

HERE = Path(__file__).parent
NAMESPACE = "shop"
READY_S_MAX = 60
CELL_S_MAX = 120
SUBSCRIBED_S_MAX = 30
PAUSE_S = 0.05
ORDERS = [{"orderId": number} for number in (1, 2, 3, 7, 13, 4)]
NONE, OK, FAILED = "-", "ok", "FAILED"


class Block(NamedTuple):
    name: str
    served: bool


# Set `served` as soon as the node serves a block: from then on a failure of its column fails the run.
BLOCKS = [
    Block("startup", served=True),
    Block("tokenless", served=True),
    Block("metadata", served=True),
    Block("state", served=True),
    Block("secret", served=True),
    Block("configuration", served=True),
    Block("publish", served=True),
    Block("push", served=True),
    Block("invocation", served=True),
    Block("shutdown", served=True),
    Block("unserved", served=True),
]


class Application(NamedTuple):
    """A program that the runtime calls, under the name by which the others know it."""

    role: str
    program: str
    protocol: str = "http"
    peer: str | None = None


class Scene(NamedTuple):
    program: str
    applications: tuple = ()


class Client(NamedTuple):
    name: str
    # The environment that it needs: `python`, `mixed`, `js` or `rust`.
    tools: str
    argument: str
    scenes: dict


def scenes(extension: str, without: tuple = (), **special: list) -> dict:
    """A scene for each block, of the program of its name, unless there are special ones."""
    plain = {block.name: [Scene(block.name + extension)] for block in BLOCKS}
    return {name: scene for name, scene in {**plain, **special}.items() if name not in without}


def python(name: str, tools: str, kind: str) -> Client:
    """The synchronous client goes with an order processor over FastAPI, the asynchronous one with one over gRPC."""
    orders = "orders_fastapi.py" if kind == "sync" else "orders_grpc.py"
    push = [Scene("checkout.py", (Application("orders", orders, "http" if kind == "sync" else "grpc"),))]
    last, first = Application("last", "callee.py"), Application("peer", "callee.py", peer="last")
    over_grpc = (last._replace(role="peer"), Application("peer_grpc", "callee_grpc.py", "grpc"))
    invocation = [Scene("invocation.py", (last, first)), Scene("invocation_grpc.py", over_grpc)]
    return Client(name, tools, kind, scenes(".py", push=push, invocation=invocation))


def js(protocol: str) -> Client:
    push = [Scene("checkout.mjs", (Application("orders", "orders.mjs", protocol),))]
    applications = (
        Application("last", "callee.mjs", protocol),
        Application("peer", "callee.mjs", protocol, peer="last"),
    )
    without = ("tokenless", "configuration") if protocol == "http" else ("tokenless",)
    invocation = [Scene("invocation.mjs", applications)]
    return Client(f"js-{protocol}", "js", protocol, scenes(".mjs", without, push=push, invocation=invocation))


def rust() -> Client:
    """One binary, told the name of the program. The SDK has no shutdown, and no applications of the kinds we invoke."""
    push = [Scene("checkout", (Application("orders", "orders", "grpc"),))]
    return Client("rust", "rust", "", scenes("", ("tokenless", "invocation", "shutdown"), push=push))


CLIENTS = [
    python("python-sync", "python", "sync"),
    python("python-async", "python", "async"),
    python("python-mixed-sync", "mixed", "sync"),
    python("python-mixed-async", "mixed", "async"),
    js("http"),
    js("grpc"),
    rust(),
]


class Program:
    """One process, which says `ready`, `ok NAME` and `want WHAT…`; whatever else it prints is kept for a complaint."""

    def __init__(self, command: list, environment: dict, folder: Path, obey) -> None:
        self.command, self.obey = command, obey
        self.claims, self.printed, self.ready = [], [], threading.Event()
        self.errors = open(folder / f"{environment['TWIN_SERVICE']}.err", "w+")
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
        )
        self.ended = threading.Thread(target=self.listen, daemon=True)
        self.ended.start()

    def listen(self) -> None:
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if line == "ready\n":
                self.ready.set()
            elif word == "ok":
                self.claims.append(rest)
            elif word == "want":
                self.answer(rest)
            else:
                self.printed.append(line)

    def answer(self, wanted: str) -> None:
        try:
            self.obey(wanted)
            answer = "done"
        except Exception as error:
            answer = f"no: {error}".replace("\n", " ")
        self.process.stdin.write(f"{answer}\n")

    def wait_until_ready(self) -> None:
        until = time.monotonic() + READY_S_MAX
        while not self.ready.wait(PAUSE_S):
            assert self.process.poll() is None, f"ended before it was ready{self.told()}"
            assert time.monotonic() < until, f"not ready within {READY_S_MAX} s{self.told()}"

    def close_input(self) -> None:
        self.process.stdin.close()

    def end(self, deadline: float) -> None:
        """Waits for it to end by itself, and content."""
        try:
            code = self.process.wait(max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {CELL_S_MAX} s{self.told()}") from None
        self.ended.join(READY_S_MAX)
        assert code == 0, f"ended with {code}{self.told()}"

    def told(self) -> str:
        self.errors.seek(0)
        claims = "".join(f"\n  ok {claim}" for claim in self.claims)
        return f" ({self.command[-2:]}):{claims}\n{''.join(self.printed[-20:])}{self.errors.read()[-4000:]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Stage:
    """Where scenes are played: a node, and what each language needs."""

    def __init__(self, node: Node, folder: Path, tools: dict) -> None:
        self.node, self.folder, self.tools = node, folder, tools

    def play(self, client: Client, block: str) -> list:
        """The claims of all scenes of a cell."""
        claims = []
        for number, scene in enumerate(client.scenes[block]):
            claims += self.scene(
                client, scene, f"{client.name}-{block}-{number}" if number else f"{client.name}-{block}"
            )
        return claims

    def scene(self, client: Client, scene: Scene, name: str) -> list:
        names = {each.role: f"{name}-{each.role}".replace("_", "-") for each in scene.applications}
        seeded = self.seed(name, names, scene)
        # Applications are under way before the program in front of them, each after its own peer.
        programs, ways = [], []
        deadline = time.monotonic() + CELL_S_MAX
        try:
            for each in scene.applications:
                self.application(client, each, names, {**seeded, "TWIN_SENDER": name}, programs, ways)
            roles = {f"TWIN_{role.upper()}": service for role, service in names.items() if role != "orders"}
            front = self.program(client, scene.program, name, {**seeded, **roles}, programs)
            front.end(deadline)
            for program in programs[:-1]:
                program.close_input()
            for program in programs[:-1]:
                program.end(deadline)
            self.check_others(name)
            return [claim for program in programs for claim in program.claims]
        finally:
            for program in programs:
                program.kill()
            for way in ways:
                way.terminate()
            for way in ways:
                way.wait()

    def seed(self, name: str, names: dict, scene: Scene) -> dict:
        """What the scene finds, and what its programs are told of it."""
        for service in [*names.values(), name, "other"]:
            seed.service(self.node, NAMESPACE, service)
        topic = f"{name}-orders"
        block = Path(scene.program).stem
        if block == "secret":
            for key, value in seed.SECRETS.items():
                seed.secret(self.node, NAMESPACE, name, key, value)
        if block == "configuration":
            for key, value in seed.CONFIGURATION.items():
                seed.configuration(self.node, NAMESPACE, name, key, value)
        for each in scene.applications:
            if each.role == "orders":
                for part in (topic, f"{topic}-dead"):
                    seed.may_receive(self.node, NAMESPACE, names[each.role], name, part)
                continue
            seed.may_invoke(self.node, NAMESPACE, name, names[each.role])
            # Whether somebody is there is told only to those who may call.
            seed.may_invoke(self.node, NAMESPACE, name, "unknown")
            if each.peer:
                seed.may_invoke(self.node, NAMESPACE, names[each.role], names[each.peer])
        return {
            **{f"TWIN_{key.upper()}": value for key, value in seed.STORES.items()},
            "TWIN_SEEDED_SECRETS": json.dumps(seed.SECRETS),
            "TWIN_SEEDED_CONFIGURATION": json.dumps(seed.CONFIGURATION),
            "TWIN_ORDERS": json.dumps(ORDERS),
            "TWIN_TOPIC": topic,
        }

    def application(self, client: Client, each: Application, names: dict, told: dict, programs: list, ways: list) -> None:
        """Starts it, opens the way in to it, and waits for the node to know what it wants."""
        port, service = free_port(), names[each.role]
        more = {**told, "APP_PORT": str(port), **({"TWIN_PEER": names[each.peer]} if each.peer else {})}
        self.program(client, each.program, service, more, programs).wait_until_ready()
        ways.append(seed.application(self.node, NAMESPACE, service, port, each.protocol))
        if each.role == "orders":
            wanted = {told["TWIN_TOPIC"], f"{told['TWIN_TOPIC']}-dead"}
            until = time.monotonic() + SUBSCRIBED_S_MAX
            while not wanted <= (found := seed.subscriptions(self.node, self.node.key_for(NAMESPACE, service))):
                assert time.monotonic() < until, f"{service} is subscribed to {found}, not to {wanted}"
                time.sleep(PAUSE_S)

    def program(self, client: Client, program: str, service: str, told: dict, programs: list) -> Program:
        """The three variables, and nothing else of the SDK's own."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DAPR_", "APP_", "TWIN_"))}
        endpoint = seed.listener(self.node, NAMESPACE, service)
        address = endpoint.removeprefix("http://")
        environment = {
            **clean,
            **told,
            "DAPR_HTTP_ENDPOINT": endpoint,
            # With its scheme it is taken by every SDK; the one for Rust takes it in no other form.
            "DAPR_GRPC_ENDPOINT": endpoint,
            "DAPR_API_TOKEN": self.node.key_for(NAMESPACE, service),
            "TWIN_SERVICE": service,
            "TWIN_GRPC_ADDRESS": address,
            "TWIN_SHARED_ADDRESS": self.node.url.removeprefix("http://"),
            "TWIN_OTHER_TOKEN": self.node.key_for(NAMESPACE, "other"),
            "TWIN_HTTP_PORT": address.partition(":")[2],
            "TWIN_GRPC_PORT": address.partition(":")[2],
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [*self.tools[client.tools](program), *([client.argument] if client.argument else [])]
        programs.append(Program(command, environment, self.folder, lambda wanted: self.obey(service, wanted)))
        return programs[-1]

    def obey(self, service: str, wanted: str) -> None:
        what, key, value = wanted.split(" ", 2)
        assert what == "configuration", f"nobody here can do '{wanted}'"
        seed.configuration(self.node, NAMESPACE, service, key, value)

    def check_others(self, name: str) -> None:
        """Whatever a scene did to its own session, the node is there, and so is everybody else."""
        assert self.node.process.poll() is None and self.node.ready(), f"after {name} the node is not ready"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def tools_of(options: argparse.Namespace) -> dict:
    """How the programs of each language are started; a language without its tools is not played."""
    found = {}
    for name in ("python", "mixed"):
        if interpreter := getattr(options, name):
            found[name] = lambda program, interpreter=interpreter: [interpreter, HERE / "dapr-py" / program]
    if options.js:
        found["js"] = lambda program: ["node", options.js / program]
    if options.rust:
        found["rust"] = lambda program: [options.rust, program]
    return found


def table(cells: dict, clients: list, blocks: list) -> None:
    wide = max(len(client.name) for client in clients)
    print("\n" + " " * wide, *(f"{block:>{max(len(block), 6)}}" for block in blocks))
    for client in clients:
        row = (f"{cells[client.name, block]:>{max(len(block), 6)}}" for block in blocks)
        print(f"{client.name:{wide}}", *row)


def play_all(stage: Stage, clients: list, blocks: list) -> dict:
    cells = {}
    for block in blocks:
        for client in clients:
            cell = client.name, block
            if block not in client.scenes:
                cells[cell] = NONE
                continue
            began = time.monotonic()
            try:
                claims = stage.play(client, block)
                assert claims, "the programs claimed nothing"
                cells[cell] = OK
                print(
                    f"ok     {block}: {client.name}, {len(claims)} claims, {time.monotonic() - began:.1f} s", flush=True
                )
            except AssertionError as complaint:
                cells[cell] = FAILED
                print(f"FAILED {block}: {client.name}: {complaint}", flush=True)
            if stage.node.process.poll() is not None:
                print(f"the node ended with {stage.node.process.returncode}:\n{stage.node.log()}")
                stage.node.start()
    return cells


def main() -> int:
    names = [block.name for block in BLOCKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=Path, required=True, help="the node's binary")
    parser.add_argument("--python", type=Path, help="an interpreter with requirements-dapr.txt")
    parser.add_argument("--mixed", type=Path, help="an interpreter with requirements-dapr-mixed.txt")
    parser.add_argument("--js", type=Path, help="a copy of tests/clients/dapr-js with node_modules")
    parser.add_argument("--rust", type=Path, help="the binary of tests/clients/rust")
    parser.add_argument("--only", nargs="+", metavar="BLOCK", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--client", nargs="+", metavar="CLIENT", help=f"of {', '.join(each.name for each in CLIENTS)}")
    parser.add_argument("--all", action="store_true", help="blocks that are not served, too")
    options = parser.parse_args()
    tools = tools_of(options)
    blocks = options.only or [block.name for block in BLOCKS if block.served or options.all]
    clients = [each for each in CLIENTS if each.tools in tools and (not options.client or each.name in options.client)]
    assert clients, f"no client has its tools, or its name is wrong; there are {[each.name for each in CLIENTS]}"
    if not blocks:
        print("dapr: no block is served yet; --all runs them nevertheless")
        return 0
    with tempfile.TemporaryDirectory(prefix="twin-dapr-") as folder:
        node = Node(options.twin, Path(folder))
        try:
            cells = play_all(Stage(node, Path(folder), tools), clients, blocks)
            table(cells, clients, blocks)
        finally:
            node.stop()
    passed, failed = (sum(cell == what for cell in cells.values()) for what in (OK, FAILED))
    print(f"dapr: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
