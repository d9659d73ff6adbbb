"""An application that others invoke; it knows nothing of the runtime but a client, with which it invokes its peer."""

import asyncio
import os
import sys
import threading
import time

import uvicorn
from dapr.aio.clients import DaprClient
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

app = FastAPI()
go = asyncio.Event()
STARTED_S_MAX = 20


@app.api_route("/echo/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def echo(request: Request) -> JSONResponse:
    told = {
        "verb": request.method,
        "path": request.url.path,
        "query": request.url.query,
        "type": request.headers.get("content-type"),
        "given": request.headers.get("x-given"),
        "caller": request.headers.get("dapr-caller-app-id"),
        "token": request.headers.get("dapr-api-token"),
        "body": (await request.body()).decode(),
    }
    return JSONResponse(told, headers={"x-verb": request.method, "x-back": "given back"})


@app.api_route("/status/{status}", methods=["GET", "POST"])
async def answered(status: int) -> Response:
    return Response(f'{{"status": {status}}}', status, {"x-back": "given back"}, "application/json")


@app.get("/binary")
async def binary() -> Response:
    return Response(bytes(range(256)), media_type="application/octet-stream")


@app.get("/stream")
async def stream() -> StreamingResponse:
    """Its second half comes when somebody says so: who holds back an answer until it is whole, waits for ever."""

    async def halves():
        yield b"first\n"
        await go.wait()
        yield b"second\n"

    return StreamingResponse(halves(), media_type="text/plain")


@app.post("/go")
async def second_half() -> dict:
    go.set()
    return {}


@app.post("/count")
async def count(request: Request) -> dict:
    sizes = [len(chunk) async for chunk in request.stream()]
    return {"bytes": sum(sizes)}


@app.get("/chain")
async def chain() -> dict:
    async with DaprClient() as dapr:
        answer = await dapr.invoke_method(os.environ["TWIN_PEER"], "echo/chained", http_verb="PUT", data="through")
    return {"of": os.environ["TWIN_SERVICE"], "told": answer.json()}


def main() -> None:
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
    )
    threading.Thread(target=server.run, daemon=True).start()
    until = time.monotonic() + STARTED_S_MAX
    while not server.started:
        assert time.monotonic() < until, "the application did not start"
        time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.read()


main()
