"""Publishes orders, as the public quick start does."""

import json

from common import client, name_of, ok, run

ORDERS = json.loads(name_of("orders"))


async def story() -> None:
    dapr = client()
    for order in ORDERS:
        await dapr.publish_event(
            pubsub_name=name_of("pubsub"),
            topic_name=name_of("topic"),
            data=json.dumps(order),
            data_content_type="application/json",
        )
    ok("orders are published")
    await dapr.close()


run(story)
