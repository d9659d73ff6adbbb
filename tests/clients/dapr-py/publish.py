"""Events of every form, published and read back over a streaming subscription, and all that may be answered to one."""

import json

from dapr.clients.grpc._response import TopicEventResponse
from grpc import StatusCode

from common import KIND, Told, client, name_of, ok, raw, refused, run, same, until

PUBSUB = name_of("pubsub")
TOPIC = name_of("topic")
SENT = "com.dapr.event.sent"


async def subscribed(dapr, topic: str, **options: object) -> Told:
    return Told(await dapr.subscribe(pubsub_name=PUBSUB, topic=topic, **options))


async def taken(subscription):
    """The next message, with which we are content."""
    message = await subscription.next_message()
    await subscription.respond_success(message)
    return message


async def forms(dapr) -> None:
    topic = f"{TOPIC}/forms"
    subscription = await subscribed(dapr, topic)
    await dapr.publish_event(PUBSUB, topic, data="größe")
    message = await taken(subscription)
    same(
        "text",
        (message.data_content_type(), message.data(), message.raw_data()),
        ("text/plain", "größe", "größe".encode()),
    )
    same("where", (message.pubsub_name(), message.topic()), (PUBSUB, topic))
    same("envelope", (message.spec_version(), message.type(), message.source()), ("1.0", SENT, name_of("service")))
    assert message.id(), "an event has no id"
    ok("text")

    await dapr.publish_event(PUBSUB, topic, data=json.dumps({"orderId": 1}), data_content_type="application/json")
    message = await taken(subscription)
    same("JSON", (message.data_content_type(), message.data()), ("application/json", {"orderId": 1}))
    ok("JSON")

    await dapr.publish_event(PUBSUB, topic, data=bytes(range(256)), data_content_type="application/octet-stream")
    message = await taken(subscription)
    same("bytes", (message.data_content_type(), message.raw_data()), ("application/octet-stream", bytes(range(256))))
    ok("bytes")

    event = {
        "specversion": "1.0",
        "id": "own-1",
        "source": "own",
        "type": "own.type",
        "data": {"a": 1},
        "colour": "red",
    }
    event["datacontenttype"] = "application/json"
    await dapr.publish_event(PUBSUB, topic, data=json.dumps(event), data_content_type="application/cloudevents+json")
    message = await taken(subscription)
    same("own event", (message.id(), message.source(), message.type()), ("own-1", "own", "own.type"))
    same("its data", message.data(), {"a": 1})
    same("its extension", message.extensions().get("colour"), "red")
    ok("a whole CloudEvent")

    overrides = {"cloudevent.id": "over-1", "cloudevent.source": "over", "cloudevent.type": "over.type"}
    await dapr.publish_event(PUBSUB, topic, data="a", publish_metadata=overrides)
    message = await taken(subscription)
    same("overridden", (message.id(), message.source(), message.type()), ("over-1", "over", "over.type"))
    ok("metadata overrides the envelope")

    await dapr.publish_event(PUBSUB, topic, data="a", publish_metadata={"ttlInSeconds": "600"})
    message = await taken(subscription)
    assert message.extensions().get("expiration"), f"no expiration among {message.extensions()}"
    ok("an event may end")
    await subscription.close()

    topic = f"{TOPIC}/raw"
    subscription = await subscribed(dapr, topic, metadata={"rawPayload": "true"})
    await dapr.publish_event(PUBSUB, topic, data=b"\x00raw\xff", publish_metadata={"rawPayload": "true"})
    message = await taken(subscription)
    same("raw", message.raw_data(), b"\x00raw\xff")
    ok("a raw payload")
    await subscription.close()


async def bulk(dapr) -> None:
    topic = f"{TOPIC}/bulk"
    subscription = await subscribed(dapr, topic)
    await publish_bulk(dapr, topic)
    found = sorted([(await taken(subscription)).raw_data() for _ in range(3)])
    same("bulk", found, [b"bytes", b"text", b'{"a": 1}'])
    ok("bulk publish")
    entries = [{"entryId": "1", "event": {"a": 2}, "contentType": "application/json"}]
    status, _, body = raw("POST", f"/v1.0/publish/bulk/{PUBSUB}/{topic}", entries)
    same("bulk over HTTP", (status, body), (204, b""))
    same("its event", (await taken(subscription)).data(), {"a": 2})
    status, _, _ = raw("POST", f"/v1.0/publish/bulk/{PUBSUB}/{topic}", entries * 2)
    same("an entry twice", status, 400)
    ok("bulk publish over HTTP")
    await subscription.close()


async def publish_bulk(dapr, topic: str) -> None:
    if KIND == "sync":
        from dapr.clients import BulkPublishEntry
    else:
        from dapr.clients.grpc._request import BulkPublishEntry
    entry = BulkPublishEntry(json.dumps({"a": 1}), content_type="application/json", metadata={"partitionKey": "a"})
    answer = await dapr.publish_events(PUBSUB, topic, ["text", b"bytes", entry])
    same("failed entries", answer.failed_entries, [])


async def answers(dapr) -> None:
    topic, dead = f"{TOPIC}/answers", f"{TOPIC}/dead"
    letters = await subscribed(dapr, dead)
    subscription = await subscribed(dapr, topic, dead_letter_topic=dead)
    await dapr.publish_event(PUBSUB, topic, data="again")
    message = await subscription.next_message()
    await subscription.respond_retry(message)
    repeated = await subscription.next_message()
    same("after retry", (repeated.id(), repeated.data()), (message.id(), "again"))
    await subscription.respond_success(repeated)
    ok("what is to be retried comes again")

    await dapr.publish_event(PUBSUB, topic, data="bad")
    await subscription.respond_drop(await subscription.next_message())
    await dapr.publish_event(PUBSUB, topic, data="good")
    same("after drop", (await taken(subscription)).data(), "good")
    same("dead letter", (await taken(letters)).data(), "bad")
    ok("what is dropped becomes a dead letter")

    for number in range(20):
        await dapr.publish_event(PUBSUB, topic, data=str(number))
    waiting = [await subscription.next_message() for _ in range(20)]
    for message in reversed(waiting):
        await subscription.respond_success(message)
    same("all at once", sorted(int(message.data()) for message in waiting), list(range(20)))
    ok("many are under way at once")
    await subscription.close()
    await letters.close()


async def handled(dapr) -> None:
    topic = f"{TOPIC}/handled"
    seen = []

    def handle(message) -> TopicEventResponse:
        seen.append(message.data())
        return TopicEventResponse("retry" if seen.count(message.data()) == 1 else "success")

    async def handle_later(message) -> TopicEventResponse:
        return handle(message)

    handler = handle if KIND == "sync" else handle_later
    close = await dapr.subscribe_with_handler(pubsub_name=PUBSUB, topic=topic, handler_fn=handler)
    await dapr.publish_event(PUBSUB, topic, data="twice")

    async def both() -> bool:
        return seen == ["twice", "twice"]

    await until("the second delivery", both)
    ok("a handler is called")
    if KIND == "sync":
        close()
    else:
        await close()


async def errors(dapr) -> None:
    unknown = await refused(
        "an unknown pubsub", dapr.publish_event("unknown", "a", data="a"), StatusCode.INVALID_ARGUMENT
    )
    same("reason", unknown.error_code(), "DAPR_PUBSUB_NOT_FOUND")
    await refused("no topic", dapr.publish_event(PUBSUB, "", data="a"), StatusCode.INVALID_ARGUMENT)
    status, _, body = raw("POST", "/v1.0/publish/unknown/a", {})
    same("over HTTP", (status, json.loads(body)["errorCode"]), (404, "ERR_PUBSUB_NOT_FOUND"))
    ok("an unknown pubsub is refused")


async def story() -> None:
    dapr = client()
    # The asynchronous client subscribes without its token: on an endpoint that many share, this tells who it is.
    await dapr.get_metadata()
    for part in (forms, bulk, answers, handled, errors):
        await part(dapr)
    await dapr.close()


run(story)
