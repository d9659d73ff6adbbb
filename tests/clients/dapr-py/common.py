"""What the programs share: one story for both clients of the SDK, and the words with which they tell the runner.

A program is called with the kind of client, `sync` or `async`. It prints `ok NAME` for each claim that held, and ends
with a complaint at the first that did not. `want WHAT…` asks the runner for what only an operator can do; it answers
`done`.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import urllib.error
import urllib.request

import grpc
from dapr.clients.exceptions import DaprGrpcError, DaprInternalError

KIND = sys.argv[1] if len(sys.argv) > 1 else "sync"
assert KIND in ("sync", "async"), f"no kind of client is called {KIND!r}"
if KIND == "sync":
    from dapr.clients import DaprClient
else:
    from dapr.aio.clients import DaprClient

WITHIN_S = 20
PAUSE_S = 0.05


def ok(name: str) -> None:
    print(f"ok {name}", flush=True)


def name_of(what: str) -> str:
    """The name under which the runner has seeded something, such as `state` for the store of states."""
    return os.environ[f"TWIN_{what.upper()}"]


def want(*words: str) -> None:
    print("want", *words, flush=True)
    answer = sys.stdin.readline().strip()
    assert answer == "done", f"the runner answered {answer!r} to 'want {' '.join(words)}'"


def same(what: str, found: object, expected: object) -> None:
    assert found == expected, f"{what}: {found!r} instead of {expected!r}"


class Told:
    """A client, or what it gave, of either kind: each of its methods is awaited."""

    def __init__(self, told: object) -> None:
        self.told = told

    def __getattr__(self, name: str):
        method = getattr(self.told, name)

        async def call(*positional, **named):
            answer = method(*positional, **named)
            return await answer if inspect.isawaitable(answer) else answer

        return call


def client(**options: object) -> Told:
    return Told(DaprClient(**options))


async def until(what: str, condition) -> object:
    """Waits for the condition to hold, and gives what it gave."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {WITHIN_S} s"
        if KIND == "sync":
            time.sleep(PAUSE_S)
        else:
            await asyncio.sleep(PAUSE_S)
    return found


async def refused(what: str, call, *codes: grpc.StatusCode) -> DaprGrpcError:
    """Awaits what has to be refused with one of the codes, and gives it as the SDK tells errors apart."""
    try:
        answer = await call
    except (grpc.RpcError, DaprInternalError) as caught:
        # Some methods of the asynchronous client keep only the message, and the status as its cause.
        error = caught if isinstance(caught, grpc.RpcError) else caught.__cause__
        assert isinstance(error, grpc.RpcError), f"{what}: {caught!r} comes from no status"
        assert error.code() in codes, f"{what}: {error.code()} ({error.details()}) instead of {codes}"
        return error if isinstance(error, DaprGrpcError) else DaprGrpcError(error)
    raise AssertionError(f"{what} was not refused, but answered {answer!r}")


def raw(method: str, path: str, body: object = None) -> tuple:
    """What no method of the SDK shows: status, headers and body of a request over HTTP."""
    request = urllib.request.Request(
        os.environ["DAPR_HTTP_ENDPOINT"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def run(story) -> None:
    """Runs the story to its end. Synchronous clients refuse to work inside an event loop, so they get none."""
    if KIND == "async":
        asyncio.run(story())
        return
    telling = story()
    try:
        telling.send(None)
    except StopIteration:
        return
    raise AssertionError("a story over the synchronous client waited for an event loop")
