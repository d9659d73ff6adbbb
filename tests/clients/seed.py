"""What only an operator can do, over the native API, before and while the programs of the Dapr clients run.

Each function is one call of the native API. Paths and bodies here are the only ones that the tests of the Dapr clients
know: whoever changes them changes them here.
"""

import json
import subprocess
import urllib.request

from node import Node

# The names of the components, as a service finds them without configuring any.
STORES = {"state": "statestore", "secrets": "secretstore", "configuration": "configstore", "pubsub": "pubsub"}
SECRETS = {"database": "p@ss wörd", "api-key": "0123456789abcdef", "certificate": "line 1\nline 2\n"}
CONFIGURATION = {"colour": "red", "limit": "10", "greeting": "größe"}


def twin(namespace: str, name: str) -> str:
    return f"/api/v1/twins/{namespace}/{name}"


def service(node: Node, namespace: str, name: str) -> str:
    """The key with which a service speaks; it names the twin, which comes into being with the first word."""
    return node.key_for(namespace, name)


# ADJUST: where the twin's own listener is, on which nobody needs a token; without one, where everybody is.
def listener(node: Node, namespace: str, name: str) -> str:
    return node.url


def secret(node: Node, namespace: str, name: str, key: str, value: str) -> None:
    node.call("PUT", f"{twin(namespace, name)}/secrets/{key}", raw=value.encode())


def configuration(node: Node, namespace: str, name: str, key: str, value: str) -> None:
    node.call("PATCH", f"{twin(namespace, name)}/configuration", {"keys": {key: {"value": value}}})


def application(node: Node, namespace: str, name: str, port: int, protocol: str) -> subprocess.Popen:
    """Opens the way in to an application that listens on a port: `twin run`, with a command that does nothing."""
    run = [node.binary, "--node", node.url, "run", "--app-id", f"{namespace}/{name}"]
    way = ["--token", node.key_for(namespace, name), "--app-port", str(port), "--app-protocol", protocol]
    return subprocess.Popen([*run, *way, "--", "sleep", "3600"], stdout=subprocess.DEVNULL)


def may_invoke(node: Node, namespace: str, caller: str, callee: str) -> None:
    grant = {"effect": "allow", "scope": f"invoke:{callee}/*"}
    node.call("PATCH", f"{twin(namespace, caller)}/access", {"add": [grant]})


def may_receive(node: Node, namespace: str, receiver: str, sender: str, topic: str) -> None:
    """Topics are open to the services of their namespace."""


def subscriptions(node: Node, key: str) -> set:
    """The topics that a service is subscribed to, as the metadata of the Dapr API tells."""
    request = urllib.request.Request(f"{node.url}/v1.0/metadata", headers={"dapr-api-token": key})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {each["topic"] for each in json.load(answer).get("subscriptions") or []}
