"""Messages by signed webhook, to a real HTTP server: who dies when, who answers what, and who hears twice."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from opentelemetry.trace import NonRecordingSpan
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from libs.common.config import Channel
from libs.common.db import AsyncEngine, Sessions
from libs.common.outbox import Relay
from libs.common.tracing import traceparent_of
from services.engagement.domain.journeys import journey_of
from services.engagement.jobs import delivery
from services.engagement.jobs.delivery import ForbiddenAddressError, Poster, find_address, is_allowed
from services.engagement.jobs.sender import FAILURES_TO_OPEN, Breaker, Sender
from services.engagement.store.journeys import add_version
from services.engagement.usecases.sending import LEASE, Answer, begin, claim_for, claim_stranded, finish
from tests.engagement.provider import Manner, Provider
from tests.engagement.support import CHANNEL_SECRET, definition, event, make_log, notices, wake, with_channels
from tests.support.folding import NOW, rows
from tests.support.spans import spans_kept
from tests.support.waiting import until
from tests.support.web import config_file

Step = Literal["intent", "claimed", "sending", "call", "answer"]
MINUTE = timedelta(minutes=1)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@asynccontextmanager
async def posting(channel: Channel) -> AsyncIterator[Poster]:
    poster = Poster(channel)
    yield poster
    await poster.close()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    await made.start()
    yield made
    await made.stop()


async def welcome(sessions: Sessions, channel: Channel, *people: str, now: datetime = NOW, again: bool = False) -> None:
    """The welcome goes by `channel` from now on; these people follow."""
    body = definition(trigger="follow", segment=None, channel=channel.id, purpose="service", entry="once")
    body["quiet_hours"], body["max_age_seconds"] = "wait", 24 * 3600
    async with sessions() as session, session.begin():
        await add_version(session, "demo", journey_of("welcome", 2, "live", body, now, "test"))
    log = make_log(sessions, with_channels(channel))
    follows = [event(f"f{person}", MINUTE, subject=person, now=now, traceparent=TRACE) for person in people]
    await log.apply(follows, now=now, again=again)


async def send(sessions: Sessions, poster: Poster, now: datetime, *, dies_after: Step | None = None) -> Answer | None:
    """What the worker does with one message, as far as `dies_after`."""
    if dies_after == "intent":
        return None
    async with sessions() as session, session.begin():
        claimed = await claim_for(session, poster.channel, now, 1)
    if dies_after == "claimed" or not claimed:
        return None
    async with sessions() as session, session.begin():
        body = await begin(session, claimed[0], poster.channel, now)
    if dies_after == "sending" or body is None:
        return None
    answer = await poster.post(claimed[0].row.message_id, body, datetime.now(UTC), claimed[0].row.traceparent)
    if dies_after == "answer":
        return answer
    async with sessions() as session, session.begin():
        await finish(session, claimed[0], poster.channel, answer, now, 0.0)
    return answer


async def die(sessions: Sessions, provider: Provider, step: Step, idempotent: bool) -> None:
    """Lets a process of its own send, and die by SIGKILL after `step`, or in the middle of the call."""
    engine: AsyncEngine = sessions.kw["bind"]
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    arguments = [url, step, str(provider.port), str(idempotent)]
    root = Path(__file__).parents[2]
    dying = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.engagement.dying", *arguments, cwd=root)
    try:
        if step == "call":
            await until(lambda: bool(provider.got))
            dying.kill()
        assert await asyncio.wait_for(dying.wait(), 60) == -signal.SIGKILL
    finally:
        if dying.returncode is None:
            dying.kill()


async def state(sessions: Sessions) -> tuple[Any, ...]:
    (row,) = await rows(sessions, "message", "state, held, sent_at, lease, due_at")
    return row


async def told(sessions: Sessions) -> list[tuple[str, str | None, int]]:
    return [(row["type"], row["data"].get("state"), row["data"]["revision"]) for row in await notices(sessions)]


async def test_a_message_is_posted_signed_and_told_once_it_has_arrived(sessions: Sessions, provider: Provider) -> None:
    channel = provider.channel()
    await welcome(sessions, channel, "douyin:u1")
    assert await told(sessions) == []
    async with posting(channel) as poster:
        assert await send(sessions, poster, NOW) == Answer("sent")
        assert await send(sessions, poster, NOW + LEASE) is None
    ((headers, body),) = provider.got
    Webhook(CHANNEL_SECRET).verify(body.decode(), headers)
    assert headers["host"] == f"127.0.0.1:{provider.port}"
    data = orjson.loads(body)["data"]
    assert data["message_id"] == headers["webhook-id"]
    assert (data["journey"], data["journey_version"], data["subject"]) == ("welcome", 2, "douyin:u1")
    assert data["texts"]["en"] == {"title": "Come back", "body": "Have a look"}
    assert await state(sessions) == ("sent", False, NOW, None, None)
    assert await told(sessions) == [("message.sent", "sent", 2)]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_restored_database_sends_nothing_twice(
    sessions: Sessions, provider: Provider, idempotent: bool
) -> None:
    """What was decided after the backup is decided again; whether it was sent is known to nobody."""
    channel = replace(provider.channel(), idempotent=idempotent)
    await welcome(sessions, channel, "douyin:u1", again=True)
    async with posting(channel) as poster:
        answer = await send(sessions, poster, NOW)
    assert answer == (Answer("sent") if idempotent else None)
    assert len(provider.got) == idempotent
    expected = ("sent", False, NOW) if idempotent else ("unknown", False, None)
    assert await state(sessions) == (*expected, None, None)
    ((decision,),) = await rows(sessions, "decision", "outcome")
    assert decision == "sent"


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("step", ["intent", "claimed", "sending", "call", "answer"])
async def test_the_sender_is_killed_at_each_step(
    sessions: Sessions, provider: Provider, step: Step, idempotent: bool
) -> None:
    """Nobody hears twice: where the receiver takes an id once it is sent again under the same id, else not at all."""
    channel = provider.channel(idempotent=idempotent)
    await welcome(sessions, channel, "douyin:u1")
    if step == "call":
        provider.manner = "hang"
    await die(sessions, provider, step, idempotent)
    assert (await state(sessions))[0] == ("planned" if step in ("intent", "claimed") else "sending")
    provider.manner = "ok"
    called = len(provider.got)
    assert called == (1 if step in ("call", "answer") else 0)
    async with posting(channel) as poster:
        await send(sessions, poster, NOW + LEASE)
        await send(sessions, poster, NOW + 2 * LEASE)
    harmless = step in ("intent", "claimed")
    assert len(set(provider.ids)) <= 1
    if idempotent or harmless:
        assert len(provider.got) == called + 1
        assert (await state(sessions))[:2] == ("sent", False)
        assert await told(sessions) == [("message.sent", "sent", 2)]
    else:
        assert len(provider.got) == called
        assert await state(sessions) == ("unknown", False, None, None, None)
        assert await told(sessions) == [("message.sent", "unknown", 2)]


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("manner", ["refuse", "redirect", "cut", "gone"])
async def test_what_was_not_taken_is_tried_again_until_it_expires(
    sessions: Sessions, provider: Provider, manner: Manner, idempotent: bool
) -> None:
    """A refusal is certain; a call that was cut off is not, and is repeated only where that is harmless."""
    channel = provider.channel(idempotent=idempotent)
    accounts = with_channels(channel)
    await welcome(sessions, channel, "douyin:u1")
    if manner == "gone":  # type: ignore[comparison-overlap]
        await provider.stop()
    provider.manner = manner
    unsure = manner == "cut"
    async with posting(channel) as poster:
        now, calls = NOW, 0
        while now < NOW + timedelta(hours=26):
            await wake(sessions, now, accounts)
            calls += await send(sessions, poster, now) is not None
            now += timedelta(hours=1)
    final = await state(sessions)
    if unsure and not idempotent:
        assert (calls, final[0]) == (1, "unknown")
    else:
        assert calls == 24
        assert final[0] == ("unknown" if unsure else "expired")
    assert final[3:] == (None, None)
    assert len(set(provider.ids)) <= 1
    last = (await told(sessions))[-1]
    assert last[:2] == (("message.sent", "unknown") if unsure else ("message.skipped", "expired"))
    assert len(await told(sessions)) == 1
    outcomes = await rows(sessions, "decision", "outcome, reason, turn")
    assert outcomes == ([("sent", None, 1)] if unsure else [("sent", None, 1), ("skipped", "expired", 2)])


async def test_after_a_failure_the_gates_are_asked_again(sessions: Sessions, provider: Provider) -> None:
    channel = provider.channel()
    accounts = with_channels(channel)
    await welcome(sessions, channel, "douyin:u1")
    provider.manner = "refuse"
    async with posting(channel) as poster:
        assert (await send(sessions, poster, NOW)) == Answer("failed", "HTTP 500")
        assert (await state(sessions))[:2] == ("failed", True)
        log = make_log(sessions, accounts)
        await log.apply([event("u", timedelta(0), type="unfollow", now=NOW)], partition=1)
        provider.manner = "ok"
        assert await wake(sessions, NOW + MINUTE, accounts) == 1
        assert await send(sessions, poster, NOW + MINUTE) is None
    assert (await state(sessions))[0] == "cancelled"
    assert await told(sessions) == [("message.skipped", "cancelled", 2)]


async def test_what_no_channel_takes_any_more_expires(sessions: Sessions, provider: Provider) -> None:
    await welcome(sessions, provider.channel(), "douyin:u1")
    late = NOW + timedelta(hours=25)
    async with sessions() as session, session.begin():
        (claimed,) = await claim_stranded(session, late, 10)
    async with sessions() as session, session.begin():
        assert await begin(session, claimed, None, late) is None
    assert (await state(sessions))[0] == "expired"
    assert await told(sessions) == [("message.skipped", "expired", 2)]


async def test_a_sender_that_lost_its_lease_writes_nothing(sessions: Sessions, provider: Provider) -> None:
    channel = provider.channel()
    await welcome(sessions, channel, "douyin:u1")
    async with sessions() as session, session.begin():
        (slow,) = await claim_for(session, channel, NOW, 1)
    async with posting(channel) as poster:
        await send(sessions, poster, NOW + LEASE)
    before = await rows(sessions, "message", "*")
    async with sessions() as session, session.begin():
        assert await begin(session, slow, channel, NOW + LEASE) is None
        await finish(session, slow, channel, Answer("failed", "late"), NOW + LEASE, 0.0)
    assert await rows(sessions, "message", "*") == before
    assert len(provider.got) == 1


async def test_a_dead_provider_delays_no_other(
    sessions: Sessions, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running sender, with one channel that never answers and one that does."""
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 2.0)
    dead = Provider()
    await dead.start()
    dead.manner = "hang"
    (tmp_path / "secret").write_text(CHANNEL_SECRET)
    toml = "[accounts.demo]\n" + "".join(
        f'[[channels]]\nid = "{name}"\naccount = "demo"\nurl = "{server.channel().url}"\n'
        f'secret_files = ["secret"]\nallow_private = true\n'
        for name, server in (("dead", dead), ("alive", provider))
    )
    config = config_file(tmp_path, toml, "engagement")
    now = datetime.now(UTC)
    people = [f"douyin:u{number}" for number in range(30)]
    await welcome(sessions, dead.channel("dead"), *people, now=now)
    async with sessions() as session, session.begin():
        await session.execute(text("update message set channel = 'alive' where subject >= 'douyin:u2'"))
    alive = [row[0] for row in await rows(sessions, "message", "message_id, channel") if row[1] == "alive"]
    relay = Relay("engagement", sessions, None)  # type: ignore[arg-type]
    sender = Sender(config, sessions, relay)
    running = asyncio.create_task(sender.run())
    try:
        await until(lambda: len(provider.got) == len(alive) and bool(dead.got))
        await wait_until_sent(sessions, len(alive))
    finally:
        await sender.stop()
        await dead.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(provider.ids) == sorted(alive)
    states = await rows(sessions, "message", "channel, state")
    assert ("alive", "sent") in states
    assert ("dead", "sent") not in states


async def wait_until_sent(sessions: Sessions, count: int) -> None:
    async with asyncio.timeout(20):
        while len([row for row in await rows(sessions, "message", "state") if row == ("sent",)]) < count:
            await asyncio.sleep(0.05)


def test_the_breaker_pauses_longer_and_longer_and_closes_at_the_first_good_call() -> None:
    breaker = Breaker()
    pauses = []
    for _ in range(FAILURES_TO_OPEN + 8):
        pauses.append(breaker.pause)
        breaker.note(well=False)
    assert pauses == [0.0] * FAILURES_TO_OPEN + [2, 4, 8, 16, 32, 60, 60, 60]
    breaker.note(well=True)
    assert breaker.pause == 0


@pytest.mark.parametrize(
    ("address", "public", "own_network"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, True),
        ("fd00::1", False, True),
        ("100.64.0.1", False, False),
        ("169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("::ffff:127.0.0.1", False, True),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a00:1", False, False),
        ("2002:a00:1::", False, False),
        ("255.255.255.255", False, False),
    ],
)
def test_where_messages_may_go(address: str, public: bool, own_network: bool) -> None:
    assert is_allowed(address, allow_private=False) == public
    assert is_allowed(address, allow_private=True) == own_network


async def test_a_message_is_sent_within_the_trace_that_led_to_it(sessions: Sessions, provider: Provider) -> None:
    channel = provider.channel()
    await welcome(sessions, channel, "douyin:u1", "douyin:u2")
    async with posting(channel) as poster:
        await send(sessions, poster, NOW)
        provider.manner = "refuse"
        with spans_kept() as sent:
            await send(sessions, poster, NOW)
    [plain, traced] = [headers["traceparent"] for headers, _ in provider.got]
    assert plain == TRACE
    [span] = sent.get_finished_spans()
    assert traceparent_of(span) == traced  # type: ignore[arg-type]
    assert span.parent is not None
    assert traceparent_of(NonRecordingSpan(span.parent)) == TRACE
    assert span.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
        "superfan.channel": "gateway",
        "error.type": "failed",
    }
    assert [notice["traceparent"] for notice in await notices(sessions)] == [TRACE]


async def test_a_name_of_a_forbidden_address_is_not_called(provider: Provider) -> None:
    with pytest.raises(ForbiddenAddressError, match="not a public address"):
        await find_address("localhost", 443, allow_private=False)
    channel = Channel("x", "demo", "webhook", f"https://localhost:{provider.port}/", (CHANNEL_SECRET,))
    async with posting(channel) as poster:
        answer = await poster.post("msg_1", b"{}", datetime.now(UTC))
    assert answer.outcome == "failed"
    assert "ForbiddenAddressError" in str(answer.detail)
    assert provider.got == []
