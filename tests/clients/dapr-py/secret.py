"""Secrets of the own twin, one and all."""

import json

from grpc import StatusCode

from common import client, name_of, ok, raw, refused, run, same

STORE = name_of("secrets")
SECRETS = json.loads(name_of("seeded_secrets"))


async def story() -> None:
    dapr = client()
    for name, value in SECRETS.items():
        same(name, dict((await dapr.get_secret(STORE, name)).secret), {name: value})
    ok("a secret is read")

    found = (await dapr.get_bulk_secret(STORE)).secrets
    same("all secrets", found, {name: {name: value} for name, value in SECRETS.items()})
    ok("all secrets are read, and only ours")

    status, _, body = raw("GET", f"/v1.0/secrets/{STORE}/bulk")
    same("over HTTP", (status, json.loads(body)), (200, {name: {name: value} for name, value in SECRETS.items()}))
    ok("both doors tell the same")

    absent = await refused(
        "an absent secret", dapr.get_secret(STORE, "absent"), StatusCode.INTERNAL, StatusCode.NOT_FOUND
    )
    assert "absent" in absent.details(), f"the refusal does not name the secret: {absent.details()}"
    ok("an absent secret is refused")

    unknown = await refused("an unknown store", dapr.get_secret("unknown", "a"), StatusCode.INVALID_ARGUMENT)
    same("reason", unknown.error_code(), "DAPR_SECRET_STORE_NOT_FOUND")
    await refused("all of an unknown store", dapr.get_bulk_secret("unknown"), StatusCode.INVALID_ARGUMENT)
    status, _, body = raw("GET", "/v1.0/secrets/unknown/a")
    same("over HTTP", (status, json.loads(body)["errorCode"]), (401, "ERR_SECRET_STORE_NOT_FOUND"))
    ok("an unknown store is refused")
    await dapr.close()


run(story)
