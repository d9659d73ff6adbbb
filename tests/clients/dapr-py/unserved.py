"""What is not served is said to be so, and the SDK falls back or raises as its documents say."""

import json

from dapr.clients import Job
from grpc import StatusCode

from common import client, ok, raw, refused, run, same

NOT = StatusCode.UNIMPLEMENTED


async def story() -> None:
    dapr = client()
    job = Job(name="unserved", schedule="@every 1h")
    # The client asks for the stable method, hears UNIMPLEMENTED, asks for the alpha one and hears it again.
    await refused("a job", dapr.schedule_job(job), NOT)
    await refused("a look at a job", dapr.get_job("unserved"), NOT)
    await refused("the end of a job", dapr.delete_job("unserved"), NOT)
    ok("jobs")
    await refused("a lock", dapr.try_lock("lockstore", "resource", "owner", 10), NOT)
    await refused("an unlock", dapr.unlock("lockstore", "resource", "owner"), NOT)
    ok("locks")
    await refused("a binding", dapr.invoke_binding("binding", "create", b"{}"), NOT)
    ok("bindings")
    await refused("a query", dapr.query_state("statestore", "{}"), NOT)
    ok("queries")
    for method, path in (
        ("POST", "/v1.0-alpha1/jobs/unserved"),
        ("POST", "/v1.0-alpha1/lock/lockstore"),
        ("POST", "/v1.0/bindings/binding"),
        ("POST", "/v1.0-alpha1/state/statestore/query"),
    ):
        status, _, body = raw(method, path, {})
        same(f"{method} {path}", (status, json.loads(body)["errorCode"]), (501, "ERR_API_UNIMPLEMENTED"))
    ok("over HTTP")
    await dapr.close()


run(story)
