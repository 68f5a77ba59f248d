"""Two subjects of one person, linked before, between or after what they do: all services answer the same; taken apart
they are again the two that they were."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.services import System

FAN, BUYER = "douyin:two-1", "shop:two-2"
OTHER = "douyin:other"
TODAY = datetime.now(UTC).replace(hour=4, minute=0, second=0, microsecond=0)
WHEN = {"linked-first": 0, "linked-between": 1, "linked-last": 2}
ACCOUNTS = (*WHEN, "linked-never")

ASKED = {
    "profile": ("", "/value", "/behaviour", "/overview"),
    "segmentation": ("/lifecycle", "/ladder"),
    "engagement": ("/consents",),
    "rewards": ("/points", "/streak", "/level", "/lots"),
}
TOLD_LATER = {"user_id", "as_of", "told_at", "revision", "since_revision", "lot_id", "spendable_from", "decided_at"}
"""What names the account's own user, or the moment of an answer or of a notice."""


def deed(kind: str, subject: str, days_ago: int, number: int, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{subject}-{kind}-{number}",
        "source": "/links",
        "type": kind,
        "subject": subject,
        "platform": subject.partition(":")[0],
        "time": (TODAY - timedelta(days=days_ago, minutes=number)).isoformat(),
        "data": data,
    }


def order(number: int, days_ago: int, amount: int) -> dict[str, Any]:
    return deed("order.paid", BUYER, days_ago, number, order_id=f"o{number}", amount_minor=amount, currency="CNY")


FIRST = [
    deed("follow", FAN, 20, 1),
    deed("view", FAN, 20, 2, content_id="v1", watch_ms=5_000, duration_ms=10_000),
    deed("like", FAN, 12, 3, content_id="v1"),
    deed("sign_in", FAN, 12, 4),
    order(5, 15, 19_900),
    deed("comment", OTHER, 3, 6, content_id="v1", comment_id="c1"),
]
SECOND = [
    deed("comment", FAN, 2, 7, content_id="v1", comment_id="c2"),
    deed("consent.granted", FAN, 2, 8, purpose="marketing", channel="sms"),
    deed("sign_in", BUYER, 3, 9),
    order(10, 3, 5_000),
    deed("order.refunded", BUYER, 2, 11, refund_id="r1", order_id="o5", amount_minor=9_900, currency="CNY"),
    deed("share", BUYER, 2, 12, content_id="v1"),
]


async def link(system: System, account: str) -> None:
    body = {"subjects": [FAN, BUYER], "evidence": "login", "reason": "logged in with both"}
    await system.post_json("profile", "/v1/links", account, body)
    await system.applied()


async def answers(system: System, account: str, ref: str) -> dict[str, Any]:
    """What every service says of a user, without what differs from account to account."""
    found = {
        service + path: without_marks(await system.get(service, f"/v1/users/{ref}{path}", account))
        for service, paths in ASKED.items()
        for path in paths
    }
    # Notices: a segment is told when it changes, not when only the day since when does.
    overview = found["profile/overview"]
    for placement in (overview["lifecycle"], overview["ladder"], *overview["segments"]):
        del placement["since"]
    return found


def without_marks(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_marks(value) for name, value in answer.items() if name not in TOLD_LATER}
    return [without_marks(value) for value in answer] if isinstance(answer, list) else answer


@pytest.fixture(scope="module")
async def arrived(system: System) -> None:
    for account in ACCOUNTS:
        for number, events in enumerate((FIRST, SECOND)):
            if WHEN.get(account) == number:
                await link(system, account)
            await system.post(account, events)
            if WHEN.get(account) == number + 1:
                await system.applied()
        if WHEN.get(account) == 2:
            await link(system, account)
    await system.applied()


@pytest.mark.usefixtures("arrived")
async def test_whenever_they_are_linked_the_answers_are_the_same(system: System) -> None:
    known_from_the_start = await answers(system, "linked-first", FAN)
    assert known_from_the_start["profile"]["subjects"] == [FAN, BUYER]
    assert known_from_the_start["profile/value"]["currencies"][0]["net_minor"] == 15_000
    assert known_from_the_start["segmentation/ladder"]["rung"] == "customer"
    for account in ("linked-between", "linked-last"):
        for ref in (FAN, BUYER):
            assert await answers(system, account, ref) == known_from_the_start, (account, ref)


@pytest.mark.usefixtures("arrived")
async def test_taken_apart_they_are_the_two_that_they_were(system: System) -> None:
    for account in WHEN:
        await system.post_json(
            "profile", f"/v1/users/{FAN}/unlink", account, {"subjects": [BUYER], "reason": "another person"}
        )
    await system.applied()
    for subject in (FAN, BUYER, OTHER):
        never = await answers(system, "linked-never", subject)
        for account in WHEN:
            assert await answers(system, account, subject) == never, (account, subject)
