"""Compares what was acknowledged with the effects in all four stores, by a plain model of what they should be.

An event that was sent but never acknowledged may have been stored or not: if any service has it, all must.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from libs.cli.local.lag import consumed_topics
from libs.common.events import EVENT_TYPES
from libs.common.events.envelope import identity_digest
from tests.chaos.load import History, Sent
from tests.support.services import WITH_DATABASE, System

POINTS = {"follow": 10, "like": 1, "comment": 2, "order.paid": 20}
ACTIVE = {"follow", "view", "like", "comment", "order.paid"}


@dataclass
class Verdict:
    """One service's, or that on the notices which profile got from the others.

    `acknowledged` events were its to apply. `lost` of them, or of their effects, are missing; `doubled` are there more
    often than once, or were never sent. `details` names the first of each.
    """

    service: str
    acknowledged: int
    lost: int = 0
    doubled: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.details)

    def __str__(self) -> str:
        figures = f"acknowledged={self.acknowledged} lost={self.lost} doubled={self.doubled}"
        return "\n    ".join([f"{self.service}: {figures}", *self.details[:6]])

    def compare(self, what: str, wanted: Mapping[Any, int], found: Mapping[Any, int]) -> None:
        """Both count something; what one event does counts once here, however many tables show it."""
        missing, extra = Counter(wanted), Counter(found)
        missing.subtract(found)
        extra.subtract(wanted)
        for name, difference in (("missing", +missing), ("too many", +extra)):
            if difference:
                examples = ", ".join(f"{key} ×{count}" for key, count in sorted(difference.items(), key=str)[:3])
                self.details.append(f"{what}: {difference.total()} {name}, such as {examples}")
        self.lost = max(self.lost, (+missing).total())
        self.doubled = max(self.doubled, (+extra).total())


async def check(system: System, history: History) -> list[Verdict]:
    """A verdict per service and one on the notices. Everything must have been applied (`system.applied()`)."""
    found = {service: await system.event_ids(service, history.account, history.source) for service in WITH_DATABASE}
    somewhere = {name for ids in found.values() for name in ids}
    stored = [*history.acknowledged.values(), *(sent for name, sent in history.unknown.items() if name in somewhere)]
    verdicts = []
    for service in WITH_DATABASE:
        topics = consumed_topics(service)
        mine = [sent for sent in stored if EVENT_TYPES[sent.type].topic in topics]
        verdict = Verdict(service, sum(sent.id in history.acknowledged for sent in mine))
        verdict.compare("event", Counter(sent.id for sent in mine), found[service])
        for what, wanted in model(service, mine).items():
            verdict.compare(what, wanted, await _effects(system, history.account, what))
        verdict.compare(
            "dead letter",
            Counter(identity_digest(history.account, history.source, name) for name in poison_of(history, topics)),
            Counter(await _column(system, service, "select digest from dead_letter where account = $1", history)),
        )
        verdicts.append(verdict)
    return [*verdicts, await _check_notices(system, history)]


def model(service: str, events: Iterable[Sent]) -> dict[str, Counter[Hashable]]:
    """What a service's tables must hold after these events, each of them once."""
    events = list(events)
    follows = [sent for sent in events if sent.type == "follow"]
    match service:
        case "profile":
            return {"activity": Counter((sent.subject, sent.day, sent.type) for sent in events)}
        case "segmentation":
            return {"active day": Counter({(sent.subject, sent.day) for sent in events if sent.type in ACTIVE})}
        case "engagement":
            return {
                "decision": Counter(sent.id for sent in follows),
                "message": Counter({sent.subject for sent in follows}),
            }
        case _:
            earning = [sent for sent in events if sent.type in POINTS]
            points: Counter[Hashable] = Counter()
            for sent in earning:
                points[sent.subject] += POINTS[sent.type]
            return {"entry": Counter((sent.subject, sent.type) for sent in earning), "balance": Counter(points.items())}


EFFECTS = {
    "activity": ("profile", "select subject, day, type, count from activity_day where account = $1"),
    "active day": ("segmentation", "select subject, day, 1 from active_day where account = $1"),
    "decision": ("engagement", "select event_id, 1 from decision where account = $1 and journey = 'welcome'"),
    "message": ("engagement", "select subject, 1 from message where account = $1"),
    "entry": (
        "rewards",
        (
            "select subject, replace(rule, 'order_paid', 'order.paid'), count(*) from ledger_entry"
            " join holder using (account, account_ref) where account = $1 and book = 'wallet' group by 1, 2"
        ),
    ),
    "balance": (
        "rewards",
        "select subject, points, 1 from balance join holder using (account, account_ref) where account = $1",
    ),
}
"""Where the effects of `model` lie, each with how often."""


async def _effects(system: System, account: str, what: str) -> Counter[Hashable]:
    service, statement = EFFECTS[what]
    effects: Counter[Hashable] = Counter()
    for *key, count in await system.query(service, statement, account):
        effects[tuple(key) if len(key) > 1 else key[0]] += int(count)
    return effects


def poison_of(history: History, topics: Iterable[str]) -> list[str]:
    """The records that a service of these topics must have set aside."""
    return [name for name, topic in history.poison.items() if topic in topics]


async def _check_notices(system: System, history: History) -> Verdict:
    """What the services decided, each of it told once: profile has every notice in its history.

    Each revision of an entity tells something else: the same one twice means that one of the two was never decided.
    """
    moves = "select (segment_from is not null)::int + (segment_to is not null)::int from membership_change"
    wanted: Counter[Hashable] = Counter(
        await _column(system, "engagement", "select decision_id from decision where account = $1", history)
    )
    entries = "select transaction_id::text from ledger_entry where account = $1 and book = 'wallet'"
    wanted.update(await _column(system, "rewards", entries, history))
    wanted["moves"] = sum(await _column(system, "segmentation", f"{moves} where account = $1", history))
    statement = (
        "select case when type like 'segment.%' then 'moves' else id end from event"
        " where account = $1 and source <> $2 and type <> 'level.changed'"
    )
    rows = await system.query("profile", statement, history.account, history.source)
    verdict = Verdict("notices", wanted.total())
    verdict.compare("notice", wanted, Counter(row[0] for row in rows))
    told = await system.query(
        "profile",
        "select source, data->>'entity', data->>'revision', count(*) from event"
        " where account = $1 and source <> $2 group by 1, 2, 3",
        history.account,
        history.source,
    )
    revisions = {tuple(revision): count for *revision, count in told}
    verdict.compare("revision", dict.fromkeys(revisions, 1), revisions)
    return verdict


async def _column(system: System, service: str, statement: str, history: History) -> list[int]:
    return [row[0] for row in await system.query(service, statement, history.account)]


def report(verdicts: Iterable[Verdict]) -> str:
    """A line a verdict."""
    return "\n".join(map(str, verdicts))
