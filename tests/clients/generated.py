"""What schemathesis is told besides schemathesis.toml: how a request is kept from ending the check itself."""

import os
import time
import uuid

import schemathesis
from schemathesis import GenerationMode

KEY_ID = os.environ["OWN_KEY_ID"]
SPARE_KEY_ID = os.environ["SPARE_KEY_ID"]
ROTATED_KEY_ID = os.environ["ROTATED_KEY_ID"]


@schemathesis.serializer("application/x-protobuf")
def protobuf(_context: object, value: object) -> bytes:
    """Bytes as they are; any other value as no message at all, which is one without content."""
    return value if isinstance(value, bytes) else b""


@schemathesis.hook
def before_call(_context: object, case: schemathesis.Case, _arguments: dict) -> None:
    is_allowed = case.meta.generation.mode == GenerationMode.POSITIVE
    parts, operation = case.path_parameters, case.operation.label
    if operation == "DELETE /api/v1/keys/{key}" and (is_allowed or parts["key"] == KEY_ID):
        parts["key"] = SPARE_KEY_ID
    if operation == "DELETE /api/v1/twins/{namespace}/{name}" and parts["name"] == "orders":
        parts["name"] = "cart"
    if operation.startswith("DELETE") and parts.get("instance") == "orders-1":
        parts["instance"] = "orders-2"
    if operation == "POST /api/v1/keys/{key}/rotate" and (is_allowed or parts["key"] == KEY_ID):
        parts["key"] = ROTATED_KEY_ID
    # What later requests read stays there.
    if is_allowed and operation.startswith("DELETE"):
        parts.update({name: "spare" for name in ("secret", "state_key") if name in parts})
    if is_allowed and operation == "DELETE /api/v1/twins/{namespace}/{name}/state/{store}":
        parts["store"] = "spare"
    if is_allowed:
        sensible(case.headers)


def sensible(headers: dict) -> None:
    """Says what no schema can: how the body is packed, and that a key is of now."""
    headers.pop("Content-Encoding", None)
    headers.pop("Idempotency-Key-Time", None)
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = uuid7()


def uuid7() -> str:
    """A key that is good: UUIDs of version 7 carry their time."""
    milliseconds = int(time.time() * 1000)
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | uuid.uuid4().int >> 68))
