"""An order processor that the runtime calls over gRPC."""

import json
import os

from cloudevents.sdk.event import v1
from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.grpc import App

from common import name_of, same
from received import Received

PUBSUB, TOPIC = name_of("pubsub"), name_of("topic")
app = App()
received = Received()


@app.subscribe(pubsub_name=PUBSUB, topic=TOPIC, dead_letter_topic=f"{TOPIC}-dead")
def orders(event: v1.Event) -> TopicEventResponse:
    same("type", (event.EventType(), event.content_type), ("com.dapr.event.sent", "application/json"))
    same("where", (event.Subject(), event.Source()), (TOPIC, name_of("sender")))
    return TopicEventResponse(received.order(json.loads(event.Data())["orderId"]).lower())


@app.subscribe(pubsub_name=PUBSUB, topic=f"{TOPIC}-dead")
def dead_letters(event: v1.Event) -> None:
    received.letter(json.loads(event.Data())["orderId"])


app._server.add_insecure_port(f"127.0.0.1:{os.environ['APP_PORT']}")
app._server.start()
received.told()
app.stop()
