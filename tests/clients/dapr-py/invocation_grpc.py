"""Another application is invoked by its name, over gRPC: an HTTP application and one that speaks gRPC."""

import json
import os

os.environ["DAPR_API_METHOD_INVOCATION_PROTOCOL"] = "grpc"

from grpc import StatusCode

from common import client, name_of, ok, refused, run, same


async def story() -> None:
    dapr = client()
    answer = await dapr.invoke_method(
        name_of("peer"),
        "echo/a",
        data="größe",
        content_type="text/plain",
        http_verb="PUT",
        http_querystring=(("a", "1"), ("b", "ü")),
    )
    told = json.loads(answer.data)
    same("request", (told["verb"], told["path"], told["body"]), ("PUT", "/echo/a", "größe"))
    same("type", told["type"], "text/plain")
    same("query", told["query"], "a=1&b=%C3%BC")
    same("type back", answer.content_type, "application/json")
    ok("an application over HTTP")
    for status, code in (
        (400, StatusCode.INTERNAL),
        (404, StatusCode.NOT_FOUND),
        (409, StatusCode.ALREADY_EXISTS),
        (418, StatusCode.UNKNOWN),
    ):
        await refused(
            "a status", dapr.invoke_method(name_of("peer"), f"status/{status}", data="", http_verb="POST"), code
        )
    ok("a status becomes a code")
    answer = await dapr.invoke_method(name_of("peer_grpc"), "say", data=b"hello", content_type="text/plain")
    same("answer", (answer.data, answer.content_type), (b"heard hello", "text/plain; charset=UTF-8"))
    ok("an application over gRPC")
    await dapr.close()


run(story)
