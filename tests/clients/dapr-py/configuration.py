"""Configuration: read, watched, and no longer watched."""

import json
import queue

from grpc import StatusCode

from common import KIND, WITHIN_S, client, name_of, ok, refused, run, same, want

STORE = name_of("configuration")
SEEDED = json.loads(name_of("seeded_configuration"))


async def story() -> None:
    dapr = client()
    names = sorted(SEEDED)
    items = (await dapr.get_configuration(STORE, names)).items
    same("several keys", {name: item.value for name, item in items.items()}, SEEDED)
    assert all(item.version for item in items.values()), f"an item has no version: {items}"
    ok("several keys are read")
    same("one key", list((await dapr.get_configuration(STORE, names[:1])).items), names[:1])
    same("all keys", sorted((await dapr.get_configuration(STORE, [])).items), names)
    same("an absent key", list((await dapr.get_configuration(STORE, ["absent"])).items), [])
    ok("one, all and none")
    await refused("an unknown store", dapr.get_configuration("unknown", names), StatusCode.INVALID_ARGUMENT)
    ok("an unknown store is refused")
    # The asynchronous client hands its stream to a thread that reads it as if it were synchronous: it never gets an id.
    if KIND == "sync":
        await watched(dapr, names[0], names[1])
    await dapr.close()


async def watched(dapr, watched: str, other: str) -> None:
    told = queue.Queue()
    id = await dapr.subscribe_configuration(STORE, [watched], lambda id, answer: told.put((id, answer)))
    assert id, "a subscription came without an id within the five seconds that the client waits"
    ok("a subscription has an id")
    want("configuration", other, "not asked for")
    want("configuration", watched, "changed")
    while True:
        told_id, answer = told.get(timeout=WITHIN_S)
        same("id", told_id, id)
        same("keys told", list(answer.items), [watched])
        # What it was may be told first.
        if answer.items[watched].value == "changed":
            break
        same("what it was", answer.items[watched].value, SEEDED[watched])
    ok("a change is told, and no other key's")
    same("read after the change", (await dapr.get_configuration(STORE, [watched])).items[watched].value, "changed")
    assert await dapr.unsubscribe_configuration(STORE, id), "the subscription was not ended"
    want("configuration", watched, "again")
    same("read after the end", (await dapr.get_configuration(STORE, [watched])).items[watched].value, "again")
    assert told.empty(), f"told after the end: {told.get()}"
    assert not await dapr.unsubscribe_configuration(STORE, "unknown"), "an unknown subscription was ended"
    ok("after the end nothing is told")


run(story)
