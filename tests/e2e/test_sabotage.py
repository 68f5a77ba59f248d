"""The proof can fail: one promise broken on purpose, and the checker sees it. `make chaos-sabotage` breaks all."""

from tests.chaos.checker import check
from tests.chaos.load import Load
from tests.support.services import System


async def restart_profile(system: System, *program: str) -> None:
    system.program = program
    await system.children["profile"].stop()
    await system.spawn("profile")
    system.program = ()
    await system.wait_ready(["profile"])


async def test_a_service_that_forgets_what_it_has_seen_is_found_out(system: System) -> None:
    load = Load(system, "sabotaged")
    await load.send(60)
    await system.applied()
    assert all(verdict.good for verdict in await check(system, load.history))
    await restart_profile(system, "tests.chaos.sabotaged", "no-identity")
    try:
        await load.repeat()
        history = await load.stop()
        await system.applied()
    finally:
        await restart_profile(system)
    found = {verdict.service: (verdict.lost, verdict.doubled) for verdict in await check(system, history)}
    assert found.pop("profile") == (0, 60)
    assert set(found.values()) == {(0, 0)}
