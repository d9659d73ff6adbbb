"""Another application is invoked by its name, over HTTP."""

import http.client
import json
import os
import urllib.parse

from dapr.clients.exceptions import DaprHttpError

from common import WITHIN_S, client, name_of, ok, run, same

PEER = name_of("peer")
MEGABYTE = 1 << 20


def connection() -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["DAPR_HTTP_ENDPOINT"]).netloc, timeout=WITHIN_S)


def headers(**more: str) -> dict:
    return {"dapr-api-token": os.environ["DAPR_API_TOKEN"], **more}


def header(answer, name: str) -> str | None:
    """The value of a header that comes once."""
    found = [value for key, value in answer.get_headers() if key.lower() == name]
    return found[0] if found else None


async def refusal(call) -> DaprHttpError:
    try:
        answer = await call
    except DaprHttpError as error:
        return error
    raise AssertionError(f"no error, but {answer!r}")


async def requests(dapr) -> None:
    for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = await dapr.invoke_method(
            PEER,
            "echo/a/b%20c",
            data="größe",
            content_type="text/plain",
            http_verb=verb,
            http_querystring=(("a", "1"), ("a", "2"), ("b", "ü &=")),
            metadata=(("x-given", "given"),),
        )
        told = answer.json()
        same("status", answer.status_code, 200)
        same("request", (told["verb"], told["path"], told["body"]), (verb, "/echo/a/b c", "größe"))
        same("query", urllib.parse.parse_qsl(told["query"]), [("a", "1"), ("a", "2"), ("b", "ü &=")])
        same("headers", (told["type"], told["given"], told["token"]), ("text/plain", "given", None))
        same("caller", told["caller"], name_of("service"))
        same("headers back", (header(answer, "x-back"), answer.content_type), ("given back", "application/json"))
    ok("verbs, path, query, headers and body")
    answer = await dapr.invoke_method(PEER, "echo/", http_verb="HEAD", data=b"")
    same("HEAD", (answer.data, header(answer, "x-verb")), (b"", "HEAD"))
    ok("an answer without a body")
    same("binary", (await dapr.invoke_method(PEER, "binary", data=b"")).data, bytes(range(256)))
    ok("an answer of any bytes")


async def statuses(dapr) -> None:
    for status in (201, 202):
        same("status", (await dapr.invoke_method(PEER, f"status/{status}", data=b"")).status_code, status)
    for status in (400, 404, 409, 418, 500, 503):
        error = await refusal(dapr.invoke_method(PEER, f"status/{status}", data=b"", http_verb="POST"))
        same("error", (error.status_code, json.loads(error.raw_response_bytes)), (status, {"status": status}))
    ok("statuses are passed through, with their bodies")
    error = await refusal(dapr.invoke_method("unknown", "a", data=b""))
    same("an unknown application", (error.status_code, error.error_code), (500, "ERR_DIRECT_INVOKE"))
    ok("an unknown application is an error of ours")


async def streams(dapr) -> None:
    reading = connection()
    reading.request("GET", f"/v1.0/invoke/{PEER}/method/stream", headers=headers())
    answer = reading.getresponse()
    same("first half", (answer.status, answer.readline()), (200, b"first\n"))
    await dapr.invoke_method(PEER, "go", data=b"", http_verb="POST")
    same("second half", answer.read(), b"second\n")
    reading.close()
    ok("an answer is streamed")
    sending = connection()
    body = (b"x" * 65536 for _ in range(MEGABYTE // 65536))
    sending.request("POST", f"/v1.0/invoke/{PEER}/method/count", body, headers(), encode_chunked=True)
    same("counted", json.loads(sending.getresponse().read()), {"bytes": MEGABYTE})
    sending.close()
    ok("a request is streamed")


async def ways(dapr) -> None:
    """How services without an SDK name an application."""
    asking = connection()
    asking.request("GET", "/echo/way", headers=headers(**{"dapr-app-id": PEER}))
    answer = asking.getresponse()
    same("by header", (answer.status, json.loads(answer.read())["path"]), (200, "/echo/way"))
    asking.close()
    ok("an application is named by a header")


async def chained(dapr) -> None:
    told = (await dapr.invoke_method(PEER, "chain", data=b"")).json()
    same("first link", told["of"], PEER)
    same("second link", (told["told"]["verb"], told["told"]["body"]), ("PUT", "through"))
    same("its caller", told["told"]["caller"], PEER)
    ok("a chain names its last caller")


async def story() -> None:
    dapr = client()
    for part in (requests, statuses, streams, ways, chained):
        await part(dapr)
    await dapr.close()


run(story)
