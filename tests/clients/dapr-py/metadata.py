"""What the runtime tells of itself, and what an application may add to it."""

import json

from common import client, name_of, ok, raw, run, same


async def story() -> None:
    dapr = client()
    metadata = await dapr.get_metadata()
    same("application", metadata.application_id, name_of("service"))
    components = {each.name: each.type for each in metadata.registered_components}
    for kind, name in (
        ("state", "state"),
        ("pubsub", "pubsub"),
        ("secretstores", "secrets"),
        ("configuration", "configuration"),
    ):
        store = name_of(name)
        assert components.get(store, "").startswith(f"{kind}."), f"{store} is not a {kind} among {components}"
    ok("the stores are among the components")

    await dapr.set_metadata(attributeName="team", attributeValue="größe a/b")
    same("extended", (await dapr.get_metadata()).extended_metadata.get("team"), "größe a/b")
    await dapr.set_metadata("team", "b")
    same("extended", (await dapr.get_metadata()).extended_metadata.get("team"), "b")
    ok("an attribute is set and read")

    status, _, body = raw("GET", "/v1.0/metadata")
    same("status", status, 200)
    told = json.loads(body)
    same("application over HTTP", told["id"], name_of("service"))
    same("extended over HTTP", told["extended"]["team"], "b")
    ok("both doors tell the same")
    await dapr.close()


run(story)
