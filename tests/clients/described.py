"""Holds what a real node answers against what it says of itself, with tools that know neither.

    tests/clients/described.py --twin target/debug/twin

openapi-spec-validator reads the document as OpenAPI 3.1. schemathesis reads it, too, and sends every operation, as the
operator, requests that it allows and requests that it does not; each answer has to be one that it describes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import openapi_spec_validator
from node import Node

HERE = Path(__file__).parent
TWIN = "/api/v1/twins/shop/orders"


def furnish(node: Node) -> None:
    """Two twins; one has something of everything that a twin can have."""
    node.call("PUT", "/api/v1/twins/shop/cart")
    node.call("PUT", TWIN, {"attributes": {"owner": "team-a", "tier": 1}})
    ids = [node.call("POST", f"{TWIN}/commands", {"name": "restart"})["id"] for _ in range(4)]
    assert ids == [2, 3, 4, 5], f"schemathesis.toml names other commands than {ids}"
    for instance in ("orders-1", "orders-2"):
        health = {"status": "degraded", "reason": "slow"}
        node.call("PUT", f"{TWIN}/instances/{instance}", {"version": "1.4.0", "health": health})
    take(node, "orders-1")
    for feature in ("limits", "flags"):
        node.call("PUT", f"{TWIN}/features/{feature}/desired", {"rps": 50, "burst": 5})
    version = node.call("GET", f"{TWIN}/features/limits")["desired_version"]
    report = {"instance": "orders-1", "reported": {"rps": 40}, "applied": {"version": version, "error": "too low"}}
    node.call("POST", f"{TWIN}/features/limits/report", report)
    schema = {"type": "object", "properties": {"seconds": {"type": "integer"}}}
    node.call("PUT", f"{TWIN}/command-definitions/drain", schema)
    node.key_for("shop", "orders")
    node.call("PATCH", f"{TWIN}/configuration", {"keys": {"colour": {"value": "red"}}})
    node.call("PUT", f"{TWIN}/components/vault", {"kind": "secrets"})
    reach = {"effect": "allow", "scope": "egress:127.0.0.1:8080", "operations": ["connect", "connect-inner"]}
    node.call("PATCH", f"{TWIN}/access", {"add": [reach]})
    for instance in ("orders-1", "orders-2"):
        node.call("PUT", f"{TWIN}/endpoints/{instance}", {"url": "http://127.0.0.1:8080"})
    for name in ("db", "api", "spare"):
        node.call("PUT", f"{TWIN}/secrets/{name}", raw=b"hunter2")
    for name in ("order-1", "order-2", "spare"):
        node.call("PUT", f"{TWIN}/state/statestore/{name}", raw=b"1")
    node.call("PUT", f"{TWIN}/state/spare")
    observe(node)


def take(node: Node, instance: str) -> None:
    """Takes an instance's commands, which its first look at the stream does."""
    request = urllib.request.Request(
        f"{node.url}{TWIN}/instances/{instance}/commands", headers={"authorization": f"Bearer {node.operator()}"}
    )
    with urllib.request.urlopen(request, timeout=30) as stream:
        assert stream.readline(), "the stream ended before its first command"


def attribute(key: str, value: str) -> dict:
    return {"key": key, "value": {"stringValue": value}}


def observe(node: Node) -> None:
    """A little telemetry of each kind."""
    now = time.time_ns()
    resource = {"attributes": [attribute("service.namespace", "shop"), attribute("service.name", "orders")]}
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "startTimeUnixNano": str(now - 40_000_000),
        "endTimeUnixNano": str(now),
    }
    database = attribute("db.system.name", "postgresql")
    spans = [
        {**span, "name": "GET /orders", "kind": 2},
        {**span, "spanId": "b7ad6b7169203332", "name": "SELECT", "kind": 3, "attributes": [database]},
    ]
    point = {"timeUnixNano": str(now), "asDouble": 12.5}
    metrics = [{"name": "process.memory.usage", "unit": "By", "gauge": {"dataPoints": [point]}}]
    record = {"timeUnixNano": str(now), "severityNumber": 17, "body": {"stringValue": "it failed"}}
    for signal, named in {
        "traces": {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]},
        "metrics": {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]},
        "logs": {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]},
    }.items():
        node.call("POST", f"/v1/{signal}", named)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=Path, required=True, help="the node's binary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="twin-described-") as folder:
        # Many a generated request has a wrong key; each shall hear so.
        os.environ["TWIN_SERVER__WRONG_KEYS_PER_MINUTE"] = "1000000"
        node = Node(options.twin, Path(folder))
        try:
            document = node.call("GET", "/api/v1/openapi.json")
            openapi_spec_validator.validate(document)
            furnish(node)
            code = every_request_is_answered_as_described(node, Path(folder))
        finally:
            node.stop()
    return code


def every_request_is_answered_as_described(node: Node, folder: Path) -> int:
    """Runs schemathesis, in whose words it says what it found."""
    (folder / "openapi.json").write_text(json.dumps(node.call("GET", "/api/v1/openapi.json")))
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", HERE / "schemathesis.toml"]
    command += ["run", folder / "openapi.json", "--url", node.url]
    command += ["--report", "json", "--report-json-path", folder / "report.json"]
    spare, rotated = (node.call("POST", "/api/v1/keys", {"kind": "ingest", "namespace": "shop"})["id"] for _ in range(2))
    own = next(key["id"] for key in node.call("GET", "/api/v1/keys")["keys"] if key["kind"] == "operator")
    hooks = {"PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "generated", "SPARE_KEY_ID": spare}
    hooks |= {"OWN_KEY_ID": own, "ROTATED_KEY_ID": rotated}
    environment = {**os.environ, **hooks, "TWIN_KEY": node.operator()}
    code = subprocess.run(command, env=environment, cwd=folder).returncode
    return code or complain(unanswered(json.loads((folder / "report.json").read_text())))


# Only the newest version can be taken back, which no generator knows; tests/it reads the answer.
UNKNOWABLE = {"POST /api/v1/twins/{namespace}/{name}/configuration/rollback"}


def unanswered(report: dict) -> list:
    """Operations none of whose requests was taken: nothing is known of their answers."""
    phases = report["valid_rates"].items()
    unanswered = {label for label, of in phases if all(phase["accepted"] == 0 for phase in of.values())}
    return sorted(unanswered - UNKNOWABLE)


def complain(labels: list) -> int:
    for label in labels:
        print(f"described: no request of '{label}' was taken, so its answer was not seen")
    return 1 if labels else 0


if __name__ == "__main__":
    sys.exit(main())
