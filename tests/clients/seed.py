"""What only an operator can do, over the native API, before and while the programs of the Dapr clients run.

Each function is one call of the native API. Paths and bodies here are the only ones that the tests of the Dapr clients
know: whoever changes them changes them here.
"""

import json
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


# ADJUST: where the runtime reaches an application, and in which protocol, `http` or `grpc`.
def application(node: Node, namespace: str, name: str, port: int, protocol: str) -> None:
    node.call("PUT", f"{twin(namespace, name)}/application", {"address": f"127.0.0.1:{port}", "protocol": protocol})


# ADJUST: the grant with which one twin invokes another.
def may_invoke(node: Node, namespace: str, caller: str, callee: str) -> None:
    grant = {"capability": "invocation", "target": f"{namespace}/{callee}"}
    node.call("POST", f"{twin(namespace, caller)}/grants", grant)


def may_receive(node: Node, namespace: str, receiver: str, sender: str, topic: str) -> None:
    """Topics are open to the services of their namespace."""


def subscriptions(node: Node, key: str) -> set:
    """The topics that a service is subscribed to, as the metadata of the Dapr API tells."""
    request = urllib.request.Request(f"{node.url}/v1.0/metadata", headers={"dapr-api-token": key})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {each["topic"] for each in json.load(answer).get("subscriptions") or []}
