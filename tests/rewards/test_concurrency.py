"""One person's sign-ins by HTTP and from Kafka, and other deeds from another topic, all at the same instant."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from services.rewards import consumer
from services.rewards.domain.ladder import Ladder
from services.rewards.main import SERVICE
from services.rewards.usecases import sign_ins
from tests.support.folding import NOW, Log, rows

ROUNDS = 120
SIGN_IN_LADDER = Ladder((1, 1, 1, 1, 1, 1, 6), 7)
USERS = [f"douyin:u{n}" for n in range(4)]


def deed(event_type: str, number: int, subject: str, time: datetime) -> AnyEvent:
    return new_event(
        event_type,
        account="demo",
        source="/app",
        id=f"{event_type}-{number}-{subject}",
        subject=subject,
        time=time,
        received=time,
        data={},
    )


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    (tmp_path / "superfan.toml").write_text("[accounts.demo]\n")
    return ConfigFile(tmp_path / "superfan.toml", "rewards")


async def sign_in(sessions: Sessions, config: ConfigFile, subject: str, now: datetime) -> sign_ins.SignedIn:
    """As the route does it: one transaction."""
    async with sessions() as session, session.begin():
        return await sign_ins.sign_in(
            session, config.account("demo"), subject, None, now, trust="server", traceparent=None
        )


async def test_no_update_is_lost_and_nothing_waits_for_itself(sessions: Sessions, config: ConfigFile) -> None:
    logs = [Log("rewards", sessions, consumer.make_handler(config.account), SERVICE.keep_data) for _ in range(3)]
    earned = 0
    for number in range(ROUNDS):
        # Every second day first, so that days join runs from both sides later.
        day = NOW + timedelta(days=(number * 2) % ROUNDS + (number * 2) // ROUNDS)
        turned = USERS[number % 4 :] + USERS[: number % 4]
        *_, answers = await asyncio.gather(
            logs[0].apply([deed("follow", number, user, day) for user in USERS], now=day),
            logs[1].apply([deed("sign_in", number, user, day) for user in turned], partition=1, now=day),
            logs[2].apply([deed("like", number, user, day) for user in reversed(turned)], partition=2, now=day),
            asyncio.gather(*(sign_in(sessions, config, user, day) for user in turned)),
        )
        assert all(answer.already_signed_in == (answer.points == 0) for answer in answers)
        earned += sum(not answer.already_signed_in for answer in answers)

    assert await rows(sessions, "dead_letter", "reason") == []
    assert sorted(await rows(sessions, "sign_in_day group by subject", "subject, count(*)")) == [
        (user, ROUNDS) for user in USERS
    ]
    entries = await rows(
        sessions,
        "ledger_entry join holder using (account, account_ref) group by subject, rule",
        "subject, rule, count(*), cast(sum(points) as bigint)",
    )
    each = {"follow": 10 * ROUNDS, "like": ROUNDS, "sign_in": SIGN_IN_LADDER.total(ROUNDS)}
    assert entries == [(user, rule, ROUNDS, points) for user in USERS for rule, points in each.items()]
    assert await rows(sessions, "holder join balance using (account, account_ref)", "subject, points, revision") == [
        (user, sum(each.values()), 3 * ROUNDS) for user in USERS
    ]
    by_http = await rows(
        sessions,
        "ledger_entry e join event v on v.digest = e.event_digest and e.leg = 0 where v.source = '/rewards/sign-ins'",
        "e.transaction_id",
    )
    assert len(by_http) == earned, "an answer says that it earned if and only if it did"


async def test_a_double_click_signs_in_once(sessions: Sessions, config: ConfigFile) -> None:
    for number in range(30):
        now = NOW + timedelta(days=number)
        answers = await asyncio.gather(*(sign_in(sessions, config, "douyin:u1", now) for _ in range(4)))
        assert sorted(answer.already_signed_in for answer in answers) == [False, True, True, True]
        assert {answer.streak for answer in answers} == {number + 1}
        assert {answer.balance for answer in answers} == {SIGN_IN_LADDER.total(number + 1)}
    assert len(await rows(sessions, "event", "id")) == 30
    told = await rows(sessions, "outbox", "topic")
    assert told == [("superfan.interactions",)] * 30 + [("superfan.rewards",)] * 30
