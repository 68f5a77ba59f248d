"""The checker of the chaos battery on a real system: it finds nothing wrong, then what was spoiled by hand."""

from tests.chaos.checker import check
from tests.chaos.load import Load
from tests.support.services import System


async def test_the_checker_sees_a_loss_and_a_doubling(system: System) -> None:
    load = Load(system, "checked")
    await load.send(300)
    load.start()
    await load.send(100)
    history = await load.stop()
    await system.applied()
    verdicts = await check(system, history)
    assert all(verdict.good for verdict in verdicts), verdicts
    assert verdicts[0].acknowledged == len(history.acknowledged) >= 400
    assert verdicts[-1].acknowledged > 400

    one = next(sent for sent in history.acknowledged.values() if sent.type == "like")
    for service, statement in {
        "profile": "update activity_day set count = count + 1 where account = $1 and subject = $2 and type = 'like'",
        "segmentation": "delete from event where account = $1 and id = $2",
    }.items():
        await system.query(service, statement, "checked", one.subject if service == "profile" else one.id)
    found = {verdict.service: verdict for verdict in await check(system, history)}
    assert (found["profile"].lost, found["segmentation"].lost, found["segmentation"].doubled) == (0, 1, 0)
    assert found["profile"].doubled > 0
    assert not found["segmentation"].good
    assert found["engagement"].good
    assert found["rewards"].good
