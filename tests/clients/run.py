"""Drives a real node with the unmodified OpenTelemetry SDKs and reads the twins: they must show what was produced.

    tests/clients/run.py --twin target/debug/twin --js FOLDER_WITH_NODE_MODULES

Each SDK and transport is a service of its own. All of them go through one story: a burst, a restart of the node on the
same data, a second burst from the same processes, a restart of the services, a third burst. After each chapter the twin
must show exactly the totals so far; percentiles within the bound of their sketch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from expect import Expected
from node import Node

HERE = Path(__file__).parent
NAMESPACE = "shop"

# name, language, protocol, temporality, compression, whether histograms without a view are exponential (the SDK for
# JavaScript knows no such preference)
CLIENTS = [
    ("python-grpc", "python", "grpc", "cumulative", "gzip", True),
    ("python-http", "python", "http/protobuf", "delta", "gzip", False),
    ("python-exponential", "python", "http/protobuf", "delta", "none", True),
    ("js-grpc", "js", "grpc", "delta", "none", False),
    ("js-http", "js", "http/protobuf", "cumulative", "gzip", False),
    ("js-json", "js", "http/json", "cumulative", "none", False),
]
VERSION = "1.4.0"
ANSWER_S_MAX = 60


class Service:
    """One process of one service, told what to do over its standard input."""

    def __init__(self, client: tuple, instance: str, node: Node, js: Path) -> None:
        self.name, language, protocol, temporality, compression, exponential = client
        command = [sys.executable, HERE / "service.py"]
        if language == "js":
            command = ["node", js / "service.mjs", HERE / "burst.json"]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("OTEL_")},
            "OTEL_SERVICE_NAME": self.name,
            "OTEL_EXPORTER_OTLP_ENDPOINT": node.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{node.key_for(NAMESPACE, self.name)}",
            "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={NAMESPACE},service.version={VERSION},"
            f"service.instance.id={instance}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"
            if exponential
            else "explicit_bucket_histogram",
            # Exports happen when the program flushes, and at no other time.
            "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
        }
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.answer("ready")

    def answer(self, expected: str) -> None:
        line = self.process.stdout.readline().strip()
        assert line == expected, f"{self.name} answered {line!r} instead of {expected!r}"

    def burst(self) -> None:
        self.process.stdin.write("burst\n")
        self.answer("done")

    def end(self) -> None:
        self.process.stdin.close()
        code = self.process.wait(ANSWER_S_MAX)
        assert code == 0, f"{self.name} ended with {code}"


class Story:
    def __init__(self, node: Node, js: Path, clients: list) -> None:
        self.node, self.js, self.clients = node, js, clients
        self.services = []
        self.began = {}
        self.passed, self.failed = 0, 0

    def start(self, generation: str) -> None:
        self.services = [Service(each, f"{each[0]}-{generation}", self.node, self.js) for each in self.clients]

    def bursts(self) -> None:
        for service in self.services:
            before = time.time()
            service.burst()
            self.began.setdefault(service.name, (before, time.time()))

    def end(self) -> None:
        for service in self.services:
            service.end()

    def check(self, chapter: str, bursts: int, instances: int) -> None:
        for client in self.clients:
            earliest, latest = self.began[client[0]]
            youngest = time.time() - latest
            view = self.node.twin(NAMESPACE, client[0])
            complaints = Expected(bursts, (youngest, time.time() - earliest), client[-1]).complaints(view)
            found = len(view["instances"])
            if found != instances:
                complaints.append(f"{found} instances instead of {instances}")
            self.passed += not complaints
            self.failed += bool(complaints)
            print(f"{'FAILED' if complaints else 'ok':6} {chapter}: {client[0]}")
            for complaint in complaints:
                print(f"       {complaint}")

    def tell(self) -> None:
        self.start("a")
        self.bursts()
        self.check("first burst", 1, 1)
        self.node.restart()
        self.check("node restarted", 1, 1)
        self.bursts()
        self.check("second burst, same processes", 2, 1)
        self.end()
        self.start("b")
        self.bursts()
        self.end()
        self.check("third burst, services restarted", 3, 2)
        self.node.restart()
        self.check("node restarted again", 3, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=Path, required=True, help="the node's binary")
    parser.add_argument("--js", type=Path, required=True, help="a copy of tests/clients/js with node_modules")
    parser.add_argument("--only", help="one client by name")
    options = parser.parse_args()
    clients = [each for each in CLIENTS if options.only in (None, each[0])]
    assert clients, f"no client '{options.only}'; there are {[each[0] for each in CLIENTS]}"
    with tempfile.TemporaryDirectory(prefix="twin-clients-") as folder:
        node = Node(options.twin, Path(folder))
        story = Story(node, options.js, clients)
        try:
            story.tell()
        except Exception:
            traceback.print_exc()
            print(node.log())
            story.failed += 1
        finally:
            for service in story.services:
                service.process.kill()
            node.stop()
    print(f"clients: {story.passed} passed, {story.failed} failed")
    return 1 if story.failed else 0


if __name__ == "__main__":
    sys.exit(main())
