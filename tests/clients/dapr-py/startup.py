"""A client is made from three environment variables, or from host and port."""

import os
import time

from common import KIND, DaprClient, client, name_of, ok, run, same

# A client waits for the runtime for a minute before it gives up; one that is ready answers its first question.
AT_ONCE_S = 5


async def story() -> None:
    for variable in ("DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_RUNTIME_HOST"):
        assert variable not in os.environ, f"{variable} is set, so the endpoints prove nothing"
    began = time.monotonic()
    dapr = client()
    same("who the token says we are", (await dapr.get_metadata()).application_id, name_of("service"))
    assert time.monotonic() - began < AT_ONCE_S, "the client waited for the runtime"
    await dapr.close()
    ok("three variables are enough")

    dapr = client(address=os.environ["TWIN_GRPC_ADDRESS"])
    same("who the token says we are", (await dapr.get_metadata()).application_id, name_of("service"))
    await dapr.close()
    ok("an explicit address is taken")

    if KIND == "sync":
        with DaprClient() as dapr:
            assert dapr.get_metadata().application_id
    else:
        async with DaprClient() as dapr:
            assert (await dapr.get_metadata()).application_id
    ok("a client is a context")


run(story)
