"""Shutdown ends this session, and nothing else."""

from common import client, name_of, ok, run, until


async def story() -> None:
    dapr = client()
    await dapr.save_state(name_of("state"), "kept", "value")
    await dapr.shutdown()
    ok("shutdown is answered")
    await dapr.close()

    # The runner looks after the node and after everybody else; a new session of our own works as well.
    async def again() -> bool:
        other = client()
        try:
            return (await other.get_state(name_of("state"), "kept")).data == b"value"
        finally:
            await other.close()

    assert await until("a session after shutdown", again)
    ok("a new session finds what was kept")


run(story)
