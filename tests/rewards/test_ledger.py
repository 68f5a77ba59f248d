"""The ledger against a plain model: random sequences of whatever can happen to it, on a time of their own."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent
from libs.common.rebuild import rebuild
from services.rewards.domain.rules import FixedRule, parse_rule
from services.rewards.main import SERVICE
from services.rewards.usecases.definitions import put_rule
from services.rewards.usecases.spending import InsufficientPointsError, Request, adjust, spend
from tests.rewards.support import check_ledger, checksum, deed, linked, log_of
from tests.support.folding import NOW, Log, empty, rows

SUBJECTS = ["douyin:u1", "douyin:u2", "wechat.x:Ü"]
SHANGHAI = ZoneInfo("Asia/Shanghai")
LIKES_A_DAY, COMMENTS_IN_ALL = 5, 12
LIKE = parse_rule('{"kind": "fixed", "event_type": "like", "points": 2, "caps": {"day": 5, "week": 17}}')
COMMENT = parse_rule('{"kind": "fixed", "event_type": "comment", "points": 5, "caps": {"total": 12}}')
PAID = parse_rule(
    '{"kind": "per_amount", "event_type": "order.paid", "points": 3, "per": {"amount_minor": 100, "currency": "CNY"},'
    ' "min_amount": {"amount_minor": 150, "currency": "CNY"}}'
)


@dataclass
class Lot:
    subject: str
    earned_at: datetime
    granted: int
    remaining: int


@dataclass
class Model:
    """What the ledger must hold, in plain Python."""

    lots: list[Lot] = field(default_factory=list)
    awards: list[tuple[str, str, datetime, int]] = field(default_factory=list)
    days: dict[str, set[date]] = field(default_factory=lambda: defaultdict(set))
    orders: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    groups: list[set[str]] = field(default_factory=lambda: [{subject} for subject in SUBJECTS])

    def group(self, subject: str) -> set[str]:
        return next(group for group in self.groups if subject in group)

    def balance(self, subjects: set[str]) -> int:
        return sum(lot.remaining for lot in self.lots if lot.subject in subjects)

    def earn(self, event: AnyEvent) -> None:
        subject = event.subject
        if event.id in self.seen or subject is None:
            return
        self.seen.add(event.id)
        if event.type == "follow":
            self.award(subject, "follow", event.time, 10)
        elif event.type == "like":
            day = event.time.astimezone(SHANGHAI).date()
            monday = day - timedelta(days=day.weekday())
            left = min(
                LIKES_A_DAY - self.got(subject, "like", day, day),
                17 - self.got(subject, "like", monday, monday + timedelta(days=6)),
            )
            self.award(subject, "like", event.time, min(2, max(0, left)))
        elif event.type == "comment":
            left = COMMENTS_IN_ALL - self.got(subject, "comment", date.min, date.max)
            self.award(subject, "comment", event.time, min(5, max(0, left)))
        elif event.type == "sign_in":
            day = event.time.astimezone(SHANGHAI).date()
            if day not in self.days[subject]:
                before = ladder(self.days[subject])
                self.days[subject].add(day)
                self.award(subject, "sign_in", event.time, ladder(self.days[subject]) - before)
        elif event.type == "order.paid":
            order, amount = event.data.order_id, event.data.amount_minor
            assert amount is not None
            if order not in self.orders:
                self.orders.add(order)
                if amount >= 150:
                    self.award(subject, "order_paid", event.time, amount // 100 * 3)

    def got(self, subject: str, rule: str, first: date, last: date) -> int:
        group = self.group(subject)
        return sum(
            points
            for who, by, time, points in self.awards
            if who in group and by == rule and first <= time.astimezone(SHANGHAI).date() <= last
        )

    def award(self, subject: str, rule: str, time: datetime, points: int) -> None:
        self.awards.append((subject, rule, time, points))
        self.grant(subject, time, points)

    def grant(self, subject: str, time: datetime, points: int) -> None:
        if points:
            self.lots.append(Lot(subject, time, points, points))

    def take(self, subject: str, points: int) -> bool:
        group = self.group(subject)
        if self.balance(group) < points:
            return False
        for lot in sorted(self.lots, key=lambda lot: lot.earned_at):
            if lot.subject in group:
                paid = min(points, lot.remaining)
                lot.remaining -= paid
                points -= paid
        return True

    def regroup(self, *groups: set[str]) -> None:
        self.groups = [group for group in self.groups if not any(group & other for other in groups)]
        self.groups += groups


def ladder(days: set[date]) -> int:
    """1 a day, and 5 more on each seventh day in a row."""
    points = 0
    for day in days:
        place = 1
        while day - timedelta(days=place) in days:
            place += 1
        points += 6 if place % 7 == 0 else 1
    return points


class Run:
    """One sequence, told to the ledger and to the model."""

    def __init__(self, sessions: Sessions, log: Log, seed: int) -> None:
        self.sessions = sessions
        self.log = log
        self.rng = Random(seed)
        self.model = Model()
        self.now = NOW
        self.events: list[AnyEvent] = []
        self.revision = 1

    async def step(self, number: int) -> None:
        # No two deeds at the same microsecond, so that the age of lots is clear.
        self.now += timedelta(seconds=self.rng.choice([1, 60, 3600, 40_000]))
        self.now = self.now.replace(microsecond=number * 100)
        action = self.rng.choice(["earn"] * 6 + ["repeat", "conflict", "spend", "spend", "adjust", "take", "link"])
        before = await checksum(self.sessions)
        changed = await getattr(self, f"_{action}")(number)
        if not changed:
            assert await checksum(self.sessions) == before, f"{action} changed something though nothing may change"

    async def _earn(self, number: int) -> bool:
        batch = []
        for place in range(self.rng.randint(1, 6)):
            kind = self.rng.choice(["follow", "like", "like", "comment", "sign_in", "sign_in", "order.paid"])
            data: dict[str, Any] = {"comment_id": "c"} if kind == "comment" else {}
            if kind == "order.paid":
                data = {
                    "order_id": f"o{self.rng.randint(0, 20)}",
                    "amount_minor": self.rng.randint(0, 1000),
                    "currency": "CNY",
                }
            time = self.now - timedelta(hours=self.rng.randint(0, 240), microseconds=place)
            batch.append(deed(kind, f"{number}.{place}", self.rng.choice(SUBJECTS), time, **data))
        # Two topics may arrive in either order; what is compared is the order in which they are applied.
        batch = [
            event for topic in dict.fromkeys(event.topic for event in batch) for event in batch if event.topic == topic
        ]
        self.events += batch
        for topic in dict.fromkeys(event.topic for event in batch):
            of_topic = [event for event in batch if event.topic == topic]
            for event in of_topic if topic != "superfan.orders" else self._as_orders(of_topic):
                self.model.earn(event)
        await self.log.apply(batch, now=self.now)
        return True

    def _as_orders(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """An order paid several times within a batch is one order: its last payment tells amount and buyer, its first
        one the time."""
        orders: dict[str, list[AnyEvent]] = defaultdict(list)
        for event in events:
            orders[str(event.data.order_id)].append(event)  # type: ignore[union-attr]
        found = []
        for group in orders.values():
            last = max(group, key=lambda event: (event.time, event.id))
            first = min(event.time for event in group)
            found.append(last.model_copy(update={"time": first}))
        return found

    async def _repeat(self, _number: int) -> bool:
        if self.events:
            await self.log.apply([self.rng.choice(self.events)], now=self.now)
        return False

    async def _conflict(self, _number: int) -> bool:
        """The first copy of an event counts, whatever another one says."""
        if self.events:
            event = self.rng.choice(self.events)
            other = event.model_copy(update={"subject": self.rng.choice(SUBJECTS), "time": self.now})
            await self.log.apply([other], now=self.now)
        return False

    async def _spend(self, number: int) -> bool:
        subject = self.rng.choice(SUBJECTS)
        points = self.rng.randint(1, max(2, self.model.balance(self.model.group(subject)) + 5))
        return await self._change(number, subject, points, taking=True)

    async def _adjust(self, number: int) -> bool:
        return await self._change(number, self.rng.choice(SUBJECTS), self.rng.randint(1, 40), taking=False)

    async def _take(self, number: int) -> bool:
        return await self._change(number, self.rng.choice(SUBJECTS), -self.rng.randint(1, 40), taking=False)

    async def _change(self, number: int, subject: str, points: int, *, taking: bool) -> bool:
        request = Request("demo", subject, f"key-{number}", "a reason", "ref", "back-office", None)
        try:
            async with self.sessions() as session, session.begin():
                done = await (spend if taking else adjust)(session, request, points, self.now)
        except InsufficientPointsError:
            assert self.model.balance(self.model.group(subject)) < abs(points)
            return False
        if taking or points < 0:
            assert self.model.take(subject, abs(points))
        else:
            self.model.grant(subject, self.now, points)
        assert done.balance == self.model.balance(self.model.group(subject))
        assert sum(lot.points for lot in done.lots) == abs(points)
        return True

    async def _link(self, _number: int) -> bool:
        one, two = self.rng.sample(SUBJECTS, 2)
        self.revision += 1
        if self.model.group(one) is self.model.group(two):
            rest = self.model.group(one) - {one}
            groups = [{one}, rest]
        else:
            groups = [self.model.group(one) | self.model.group(two)]
        self.model.regroup(*groups)
        before = await checksum(self.sessions, ("ledger_entry", "lot", "lot_use", "balance", "sign_in_day"))
        await self.log.apply([linked(self.revision, *group) for group in groups], now=self.now)
        after = await checksum(self.sessions, tuple(before))
        assert after == before, "a link moves nothing"
        return True

    async def check(self) -> None:
        await check_ledger(self.sessions)
        stored = await rows(
            self.sessions, "lot join holder using (account, account_ref)", "subject, earned_at, granted, remaining"
        )
        wanted = [(lot.subject, lot.earned_at, lot.granted, lot.remaining) for lot in self.model.lots]
        assert stored == sorted(wanted, key=repr)
        balances = dict(
            await rows(self.sessions, "balance join holder using (account, account_ref)", "subject, points")
        )
        assert {subject: balances.get(subject, 0) for subject in SUBJECTS} == {
            subject: self.model.balance({subject}) for subject in SUBJECTS
        }
        awards = await rows(
            self.sessions,
            "ledger_entry join holder using (account, account_ref) where event_digest is not null",
            "subject, rule, event_time, points",
        )
        assert awards == sorted(self.model.awards, key=repr)
        assert await rows(self.sessions, "dead_letter", "reason") == []


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file: Path = tmp_path_factory.mktemp("ledger") / "superfan.toml"
    file.write_text("[accounts.demo]\n")
    return ConfigFile(file, "rewards")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_whatever_happens_the_ledger_is_that_of_a_plain_model(
    database: Sessions, config: ConfigFile, seed: int
) -> None:
    await empty(database)
    async with database() as session, session.begin():
        for key, rule in (("like", LIKE), ("comment", COMMENT), ("order_paid", PAID)):
            await put_rule(session, "demo", key, rule, NOW - timedelta(days=400), None, NOW, "back-office")
    run = Run(database, log_of(database, config), seed)
    await run.log.apply([deed("unfollow", subject, subject) for subject in SUBJECTS])  # so that everybody is known
    for number in range(30):
        await run.step(number)
        await run.check()
    url = database.kw["bind"].url.render_as_string(hide_password=False).replace("+asyncpg", "")
    rebuilt = await rebuild(url, SERVICE.facts, config.account, run.now)
    assert set(rebuilt.changed.values()) == {0}, "what is folded again is what is stored"


def test_the_rules_of_the_model_are_those_of_the_ledger() -> None:
    assert isinstance(LIKE, FixedRule)
    assert (LIKE.points, LIKE.caps.day, LIKE.caps.week) == (2, LIKES_A_DAY, 17)
    assert isinstance(COMMENT, FixedRule)
    assert COMMENT.caps.total == COMMENTS_IN_ALL
