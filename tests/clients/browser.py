"""A page of another origin, in a real Chromium, can neither use a service's own door nor a node that asks for no key.

    tests/clients/browser.py --twin target/debug/twin --js FOLDER_WITH_NODE_MODULES

The node is one for development (callers of this machine need no key), the door that of `twin run`: both would take a call
without a key from a program here. What `browser/page.mjs` tries is compared with what is there afterwards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from node import Node

SECONDS_MAX = 120
# Where they are asked from, and whether anything may come of it.
REFUSED = {
    "another site": {
        "write at the door": "opaque",
        "write at the door by name": "opaque",
        "read at the door": "blocked",
        "write at the node": "opaque",
        "read at the node": "blocked",
    },
    "a name rebound to the door": {"write": 403, "read": 403},
    "a name rebound to the node": {"write": 401, "read": 401},
    "a form of another site": {"write": 403},
}
EXPECTED = {
    **REFUSED,
    "another port": REFUSED["another site"],
    "the door itself": {"write": 204, "read": 200},
    "the node itself": {"write": 201, "read": 200},
}


def tried(node: Node, js: Path) -> dict:
    """What came of each attempt, with a service that runs meanwhile."""
    run = subprocess.Popen(
        [node.binary, "--json", "--node", node.url, "--data-dir", node.folder / "data"]
        + ["run", "--app-id", "shop/orders", "--", "sleep", str(SECONDS_MAX)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        up = json.loads(run.stdout.readline())
        environment = {**os.environ, "DOOR": str(up["http_port"]), "NODE": str(node.port)}
        page = subprocess.run(
            ["node", js / "page.mjs"], env=environment, stdout=subprocess.PIPE, text=True, timeout=SECONDS_MAX, check=True
        )
        return json.loads(page.stdout)
    finally:
        run.terminate()
        run.wait(SECONDS_MAX)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", type=Path, required=True, help="the node's binary")
    parser.add_argument("--js", type=Path, required=True, help="a copy of tests/clients/browser with node_modules")
    options = parser.parse_args()
    os.environ["TWIN_SERVER__ANONYMOUS_LOOPBACK"] = "true"
    with tempfile.TemporaryDirectory(prefix="twin-browser-") as folder:
        node = Node(options.twin, Path(folder))
        try:
            outcomes = tried(node, options.js)
            keys = node.call("GET", "/api/v1/twins/shop/orders/state/statestore")["keys"]
            labels = [key["label"] for key in node.call("GET", "/api/v1/keys")["keys"]]
        finally:
            node.stop()
    checks = {f"from {place}: {wanted}": (outcomes.get(place), wanted) for place, wanted in EXPECTED.items()}
    checks["only the door's own page has written"] = ([key["key"] for key in keys], ["own"])
    made = sorted(label for label in labels if label in ("own", "of-another-site", "rebound"))
    checks["only the node's own page has made a key"] = (made, ["own"])
    failed = 0
    for check, (found, wanted) in checks.items():
        failed += found != wanted
        print(f"{'ok' if found == wanted else 'FAILED':6} {check}" + ("" if found == wanted else f"\n       but {found}"))
    print(f"browser: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
