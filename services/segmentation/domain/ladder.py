"""The ladder: how close somebody is, from visitor to super user. A pure function of what he did, followed and paid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Literal, get_args

from libs.common.events import EVENT_TYPES, AnyEvent

Rung = Literal["none", "visitor", "fan", "user", "customer", "super_user"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
"""From the lowest on. Nobody is a super user yet: what makes one is not defined."""

INTERACTIONS = frozenset(
    name
    for name, event_type in EVENT_TYPES.items()
    if event_type.topic == "superfan.interactions" and name != "content.published"
)
"""Types by which a person does more than view."""

Following = tuple[datetime, str, str, str, bool]
"""(time, source, id, subject, whether it follows from then on)"""
Payment = tuple[datetime, str | None, int]
"""(time, currency, change of the net amount paid in minor units)"""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of a user that his rung depends on. `first_seen`: when his first active day begins."""

    first_seen: datetime | None = None
    first_interaction: datetime | None = None
    followings: tuple[Following, ...] = ()
    payments: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A rung, and the instant from which he stood on it."""

    rung: Rung
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a user stands and what puts him there; `steps` is how he came to be there, the oldest first."""

    rung: Rung
    since: datetime | None
    following: bool
    net_minor: Mapping[str, int]
    steps: list[Step] = field(default_factory=list)


def stand(facts: Facts, until: datetime | None = None) -> Standing:
    """Where a user with these facts stands; those after `until` are ignored.

    The highest rung whose own condition holds: he need not have stood on those below. So losing a condition (an
    unfollow, a full refund) takes him down to the next one that holds.
    """
    changes: list[tuple[datetime, str, str, str, str, int]] = [
        *((time, "seen", "", "", "", True) for time in (facts.first_seen,) if time),
        *((time, "interacted", "", "", "", True) for time in (facts.first_interaction,) if time),
        *((time, "follows", source, id_, subject, now) for time, source, id_, subject, now in facts.followings),
        *((time, "pays", "", "", currency, change) for time, currency, change in facts.payments if currency),
    ]
    did: set[str] = set()
    follows: dict[str, bool] = {}
    net: dict[str, int] = {}
    steps: list[Step] = []
    # What happens at one instant counts together; of a subject's follows and unfollows the last by source and id
    # stands.
    for moment, group in groupby(sorted(changes), key=itemgetter(0)):
        if until is not None and moment > until:
            break
        for _, what, _, _, name, value in group:
            if what == "pays":
                net[name] = net.get(name, 0) + value
            elif what == "follows":
                follows[name] = bool(value)
            else:
                did.add(what)
        rung: Rung = "none"
        if any(amount > 0 for amount in net.values()):
            rung = "customer"
        elif "interacted" in did:
            rung = "user"
        elif any(follows.values()):
            rung = "fan"
        elif "seen" in did:
            rung = "visitor"
        if rung != (steps[-1].rung if steps else "none"):
            steps.append(Step(rung, moment))
    last = steps[-1] if steps else Step("none", None)
    return Standing(last.rung, last.since, any(follows.values()), net, steps)


def is_interaction(event: AnyEvent) -> bool:
    """Whether `event` is a person's deed beyond viewing."""
    return event.type in INTERACTIONS
