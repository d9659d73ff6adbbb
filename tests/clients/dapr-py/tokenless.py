"""Streams that the SDK opens without its token: watching configuration synchronously, subscribing asynchronously.

A client that has been heard with its token on the same connection is known on it, as is every client on a twin's own
listener. Nobody else is, and a connection on which two have been heard is nobody's.
"""

import os

import grpc
from dapr.proto import api_service_v1, api_v1

from common import KIND, client, name_of, ok, run

# Channels to one target share a connection, unless they ask not to.
ALONE = [("grpc.use_local_subchannel_pool", 1)]


async def opened(dapr) -> None:
    if KIND == "sync":
        id = await dapr.subscribe_configuration(name_of("configuration"), ["colour"], lambda id, answer: None)
        assert id, "the stream was not opened"
        assert await dapr.unsubscribe_configuration(name_of("configuration"), id), "its subscription was not found"
    else:
        subscription = await dapr.subscribe(pubsub_name=name_of("pubsub"), topic=name_of("topic"))
        await dapr.publish_event(name_of("pubsub"), name_of("topic"), data="a")
        assert (await subscription.next_message()).data() == "a"
        await subscription.close()


def refused(*tokens: str) -> None:
    """Opens a stream without a token on a connection of its own, on which these have been heard."""
    with grpc.insecure_channel(name_of("shared_address"), ALONE) as channel:
        stub = api_service_v1.DaprStub(channel)
        for token in tokens:
            stub.GetMetadata(api_v1.GetMetadataRequest(), metadata=(("dapr-api-token", token),))
        stream = stub.SubscribeConfigurationAlpha1(
            api_v1.SubscribeConfigurationRequest(store_name=name_of("configuration"))
        )
        try:
            frame = next(stream)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED, f"{error.code()} ({error.details()})"
            return
        raise AssertionError(f"not refused, but answered {frame}")


async def story() -> None:
    refused()
    ok("a stream of nobody is refused")
    refused(os.environ["DAPR_API_TOKEN"], name_of("other_token"))
    ok("and so is one on a connection of two")
    dapr = client(address=name_of("shared_address"))
    await dapr.get_metadata()
    await opened(dapr)
    await dapr.close()
    ok("a stream is of who was heard on its connection")
    dapr = client(address=name_of("grpc_address"))
    if name_of("grpc_address") == name_of("shared_address"):
        await dapr.get_metadata()
    await opened(dapr)
    await dapr.close()
    ok("a stream is of the twin on whose listener it is")


run(story)
