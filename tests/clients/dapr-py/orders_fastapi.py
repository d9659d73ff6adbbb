"""An order processor over FastAPI, as in the public quick start."""

import os
import threading
import time

import uvicorn
from dapr.ext.fastapi import DaprApp
from fastapi import FastAPI
from pydantic import BaseModel

from common import WITHIN_S, name_of, same
from received import Received

PUBSUB, TOPIC = name_of("pubsub"), name_of("topic")
app = FastAPI()
dapr_app = DaprApp(app)
received = Received()


class CloudEvent(BaseModel):
    """As the quick start declares it: every field has to be there."""

    datacontenttype: str
    source: str
    topic: str
    pubsubname: str
    data: dict
    id: str
    specversion: str
    tracestate: str
    type: str
    traceid: str


@dapr_app.subscribe(pubsub=PUBSUB, topic=TOPIC, dead_letter_topic=f"{TOPIC}-dead")
def orders_subscriber(event: CloudEvent) -> dict:
    same(
        "type",
        (event.specversion, event.type, event.datacontenttype),
        ("1.0", "com.dapr.event.sent", "application/json"),
    )
    same("where", (event.pubsubname, event.topic, event.source), (PUBSUB, TOPIC, name_of("sender")))
    status = received.order(event.data["orderId"])
    # The quick start answers what the runtime does not know, which counts as success.
    return {"success": True} if status == "SUCCESS" else {"status": status}


@dapr_app.subscribe(pubsub=PUBSUB, topic=f"{TOPIC}-dead", route="/dead")
def dead_letters(event: dict) -> None:
    received.letter(event["data"]["orderId"])


server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
until = time.monotonic() + WITHIN_S
while not server.started:
    assert time.monotonic() < until, "the application did not start"
    time.sleep(0.05)
received.told()
