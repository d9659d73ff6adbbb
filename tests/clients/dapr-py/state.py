"""States, as the SDK's own examples use them and as its documents promise them."""

import json
import time

from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions
from grpc import StatusCode

from common import client, name_of, ok, raw, refused, run, same, until

STORE = name_of("state")
FIRST = StateOptions(concurrency=Concurrency.first_write, consistency=Consistency.strong)
LAST = StateOptions(concurrency=Concurrency.last_write)
BINARY = bytes(range(256))
LARGE = b"0123456789abcdef" * 1280
# Long enough that reading it back is no race, short enough to wait for.
TTL_S = 2


def upsert(key: str, value: str, etag: str | None = None) -> TransactionalStateOperation:
    return TransactionalStateOperation(operation_type=TransactionOperationType.upsert, key=key, data=value, etag=etag)


def remove(key: str, etag: str | None = None) -> TransactionalStateOperation:
    return TransactionalStateOperation(operation_type=TransactionOperationType.delete, key=key, etag=etag)


async def one_value(dapr) -> None:
    await dapr.save_state(STORE, "key", "value")
    same("value", (await dapr.get_state(STORE, "key")).data, b"value")
    same("text", (await dapr.get_state(STORE, "key")).text(), "value")
    await dapr.delete_state(STORE, "key")
    gone = await dapr.get_state(STORE, "key")
    same("deleted value", (gone.data, gone.etag), (b"", ""))
    await dapr.delete_state(STORE, "key")
    ok("save, get, delete")
    absent = await dapr.get_state(STORE, "never")
    same("absent value", (absent.data, absent.etag), (b"", ""))
    ok("an absent key is empty")


async def etags(dapr) -> None:
    await dapr.save_state(STORE, "counted", "a")
    same("first etag", (await dapr.get_state(STORE, "counted")).etag, "1")
    await dapr.save_state(STORE, "counted", "b", etag="1")
    same("second etag", (await dapr.get_state(STORE, "counted")).etag, "2")
    ok("etags are 1, then 2")
    await refused("a stale save", dapr.save_state(STORE, "counted", "c", etag="1"), StatusCode.ABORTED)
    await refused("a stale delete", dapr.delete_state(STORE, "counted", etag="1"), StatusCode.ABORTED)
    await refused("an etag of a later", dapr.save_state(STORE, "counted", "c", etag="9"), StatusCode.ABORTED)
    await refused("an etag of nothing", dapr.save_state(STORE, "nothing", "c", etag="1"), StatusCode.ABORTED)
    await refused("no etag", dapr.save_state(STORE, "counted", "c", etag="not one"), StatusCode.INVALID_ARGUMENT)
    found = await dapr.get_state(STORE, "counted")
    same("value after refusals", (found.data, found.etag), (b"b", "2"))
    await dapr.delete_state(STORE, "counted", etag="2")
    same("deleted by etag", (await dapr.get_state(STORE, "counted")).data, b"")
    ok("a wrong etag is refused")


async def concurrency(dapr) -> None:
    await dapr.save_state(STORE, "first", "a", options=FIRST)
    await dapr.save_state(STORE, "first", "b", etag="1", options=FIRST)
    await refused(
        "a first write that is late", dapr.save_state(STORE, "first", "c", etag="1", options=FIRST), StatusCode.ABORTED
    )
    same("value", (await dapr.get_state(STORE, "first")).data, b"b")
    ok("the first write wins")
    await dapr.save_state(STORE, "last", "a", options=LAST)
    await dapr.save_state(STORE, "last", "b", options=LAST)
    await dapr.save_state(STORE, "last", "c", etag="1", options=LAST)
    same("value", (await dapr.get_state(STORE, "last")).data, b"c")
    ok("the last write wins, whatever its etag")


async def time_to_live(dapr) -> None:
    began = time.time()
    await dapr.save_state(STORE, "brief", "a", state_metadata={"ttlInSeconds": str(TTL_S)})
    same("while it lives", (await dapr.get_state(STORE, "brief")).data, b"a")
    status, headers, body = raw("GET", f"/v1.0/state/{STORE}/brief")
    same("status", status, 200)
    expires = headers["metadata.ttlExpireTime"]
    assert expires, f"no header metadata.ttlExpireTime among {headers.items()}"
    parsed = time.mktime(time.strptime(expires[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert began + TTL_S - 2 <= parsed <= time.time() + TTL_S + 1, f"{expires} is not {TTL_S} s ahead of {began}"
    ok("an answer tells when it ends")

    async def gone() -> bool:
        return (await dapr.get_state(STORE, "brief")).data == b""

    await until("the end of a value that lives for seconds", gone)
    assert time.time() - began >= TTL_S - 1, "it ended before its time"
    ok("a value ends with its time")
    await dapr.save_state(STORE, "lasting", "a", state_metadata={"ttlInSeconds": "1"})
    await dapr.save_state(STORE, "lasting", "b", state_metadata={"ttlInSeconds": "-1"})
    assert raw("GET", f"/v1.0/state/{STORE}/lasting")[1]["metadata.ttlExpireTime"] is None
    ok("a later save takes the end away")
    await refused(
        "a ttl that is no number",
        dapr.save_state(STORE, "never", "a", state_metadata={"ttlInSeconds": "soon"}),
        StatusCode.INVALID_ARGUMENT,
        StatusCode.INTERNAL,
    )
    ok("a ttl that is no number is refused")


async def bulk(dapr) -> None:
    items = [StateItem(key=f"bulk-{number}", value=f"value {number}") for number in range(3)]
    await dapr.save_bulk_state(STORE, items)
    answer = await dapr.get_bulk_state(STORE, ["bulk-0", "bulk-1", "bulk-2", "bulk-9"], parallelism=2)
    found = {item.key: (item.data, item.etag, item.error) for item in answer.items}
    expected = {f"bulk-{number}": (f"value {number}".encode(), "1", "") for number in range(3)}
    same("bulk", found, {**expected, "bulk-9": (b"", "", "")})
    ok("bulk save and bulk get")
    items = [StateItem(key="bulk-0", value="new", etag="1"), StateItem(key="bulk-1", value="new", etag="7")]
    await refused("a bulk save with a stale etag", dapr.save_bulk_state(STORE, items), StatusCode.ABORTED)
    same("the stale one", (await dapr.get_state(STORE, "bulk-1")).data, b"value 1")
    ok("a bulk save with a stale etag is refused")


async def transaction(dapr) -> None:
    await dapr.save_state(STORE, "tx-gone", "old")
    await dapr.execute_state_transaction(STORE, [upsert("tx-a", "1"), upsert("tx-b", "2"), remove("tx-gone")])
    found = [(await dapr.get_state(STORE, key)).data for key in ("tx-a", "tx-b", "tx-gone")]
    same("after the transaction", found, [b"1", b"2", b""])
    ok("a transaction does all")
    operations = [upsert("tx-a", "3", etag="1"), upsert("tx-c", "4"), remove("tx-b", etag="9")]
    await refused(
        "a transaction with a stale etag", dapr.execute_state_transaction(STORE, operations), StatusCode.ABORTED
    )
    found = [(await dapr.get_state(STORE, key)).data for key in ("tx-a", "tx-b", "tx-c")]
    same("after the refusal", found, [b"1", b"2", b""])
    ok("or nothing")
    await dapr.execute_state_transaction(
        STORE, [upsert("tx-d", "1"), upsert("tx-d", "2"), remove("tx-a"), upsert("tx-a", "5")]
    )
    found = [(await dapr.get_state(STORE, key)).data for key in ("tx-d", "tx-a")]
    same("in their order", found, [b"2", b"5"])
    ok("operations on one key keep their order")


async def keys_and_values(dapr) -> None:
    for key in ("a/b/c", "größe", "emoji 🚀 and spaces", "per%20cent?and=more#yes", "d/", "UPPER", "upper"):
        await dapr.save_state(STORE, key, f"of {key}")
        same(f"value of {key!r}", (await dapr.get_state(STORE, key)).data, f"of {key}".encode())
    ok("keys of any text")
    for what, value in (("binary", BINARY), ("large", LARGE), ("text", "größe 🚀".encode())):
        await dapr.save_state(STORE, what, value)
        same(what, (await dapr.get_state(STORE, what)).data, value)
    ok("values of any bytes")
    await dapr.save_state(STORE, "json", json.dumps({"a": [1, 2.5, None], "b": "ü"}))
    same("json", (await dapr.get_state(STORE, "json")).json(), {"a": [1, 2.5, None], "b": "ü"})
    ok("values of JSON")
    status, _, _ = raw("POST", f"/v1.0/state/{STORE}", [{"key": "door", "value": {"a": "ü"}}])
    same("save over HTTP", status, 204)
    same("json from the other door", (await dapr.get_state(STORE, "door")).json(), {"a": "ü"})
    status, headers, body = raw("GET", f"/v1.0/state/{STORE}/door")
    same("over HTTP", (status, json.loads(body), headers["ETag"].strip('"')), (200, {"a": "ü"}, "1"))
    status, headers, body = raw("GET", f"/v1.0/state/{STORE}/binary")
    same("binary over HTTP", (status, body), (200, BINARY))
    ok("both doors have the same values")


async def errors(dapr) -> None:
    unknown = await refused("an unknown store", dapr.get_state("unknown", "a"), StatusCode.INVALID_ARGUMENT)
    same("reason", unknown.error_code(), "DAPR_STATE_NOT_FOUND")
    same("message", unknown.details(), "state store unknown is not found")
    await refused("a save there", dapr.save_state("unknown", "a", "b"), StatusCode.INVALID_ARGUMENT)
    await refused("a delete there", dapr.delete_state("unknown", "a"), StatusCode.INVALID_ARGUMENT)
    await refused("a bulk get there", dapr.get_bulk_state("unknown", ["a"]), StatusCode.INVALID_ARGUMENT)
    await refused(
        "a transaction there",
        dapr.execute_state_transaction("unknown", [upsert("a", "b")]),
        StatusCode.INVALID_ARGUMENT,
    )
    status, _, body = raw("GET", "/v1.0/state/unknown/a")
    same("over HTTP", (status, json.loads(body)["errorCode"]), (400, "ERR_STATE_STORE_NOT_FOUND"))
    ok("an unknown store is refused")

    illegal = await refused("an illegal key", dapr.save_state(STORE, "key||", "a"), StatusCode.INVALID_ARGUMENT)
    same("reason", illegal.error_code(), "DAPR_STATE_ILLEGAL_KEY")
    message = "input key/keyPrefix 'key||' can't contain '||'"
    same("message", illegal.details(), message)
    details = illegal.status_details()
    same("domain", details.error_info["domain"], "dapr.io")
    same("resource", (details.resource_info["resource_type"], details.resource_info["resource_name"]), ("state", STORE))
    same("field", details.bad_request["field_violations"], [{"field": "key||", "description": message}])
    ok("an error has the details that the SDK shows")
    for method, path, body in (("GET", "/v1.0/none", None), ("POST", f"/v1.0/state/{STORE}", {"not": "a list"})):
        status, headers, body = raw(method, path, body)
        assert status in (400, 404, 501) and json.loads(body)["errorCode"], f"{method} {path}: {status} {body!r}"
    ok("an error over HTTP has a code")


async def story() -> None:
    dapr = client()
    for part in (one_value, etags, concurrency, time_to_live, bulk, transaction, keys_and_values, errors):
        await part(dapr)
    await dapr.close()


run(story)
