"""Earn rules: what a deed earns, as data of an account. Versions take effect at a time and are never changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from libs.common.events import Currency, Whole
from libs.common.events.envelope import StrictBool
from services.rewards.domain.errors import DefinitionError
from services.rewards.domain.ladder import Ladder

MOST_POINTS = 10**12
"""Of one award; whatever a rule would give beyond it is cut off, so that no sum leaves 64 bits."""

AMOUNT_TYPES = ("order.paid", "live.gift")
Period = Literal["day", "week", "month", "total"]

FixedType = Literal[
    "follow",
    "like",
    "comment",
    "share",
    "live.gift",
    "live.fanclub",
    "survey.answered",
    "order.paid",
]
PointsEach = Annotated[int, Whole(1, 10**9)]
Cap = Annotated[int, Whole(0, MOST_POINTS)]


class Caps(BaseModel):
    """Most points that a user gets by the rule within a calendar period of the account's zone, by the time of the deed;
    the award at the edge is given in part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: Cap | None = None
    week: Cap | None = Field(None, description="Monday to Sunday.")
    month: Cap | None = None
    total: Cap | None = Field(None, description="For ever.")

    def limits(self) -> list[tuple[Period, int]]:
        """The caps that are set, the shortest period first."""
        found: list[tuple[Period, int | None]] = [
            ("day", self.day),
            ("week", self.week),
            ("month", self.month),
            ("total", self.total),
        ]
        return [(period, most) for period, most in found if most is not None]


class Amount(BaseModel):
    """Money in minor units of a currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount_minor: Annotated[int, Whole(1, 10**15)]
    currency: Currency


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    active: StrictBool = Field(True, description="A rule that is not active earns nothing.")
    growth_per_point: Annotated[int, Whole(0, 1000)] = Field(
        1, description="Growth value 成长值 that each point of this rule brings; 0 if it does not count for levels."
    )


class _DeedRule(_Rule):
    points: PointsEach
    client: StrictBool = Field(
        False, description="Whether events of public keys earn too. They can be forged by anyone who has the app."
    )
    min_amount: Amount | None = Field(None, description="Smaller deeds, and those in another currency, earn nothing.")
    caps: Caps = Caps()


class FixedRule(_DeedRule):
    """The same points for each event of the type."""

    kind: Literal["fixed"]
    event_type: FixedType

    def check(self) -> None:
        """Raises DefinitionError."""
        if self.min_amount and self.event_type not in AMOUNT_TYPES:
            raise DefinitionError("/min_amount", f"a {self.event_type} has no amount")


class AmountRule(_DeedRule):
    """Points for each whole `per` of the amount; what is left over earns nothing, nor do other currencies."""

    kind: Literal["per_amount"]
    event_type: Literal["order.paid", "live.gift"]
    per: Amount

    def check(self) -> None:
        """Nothing in it can contradict the rest."""


class StreakRule(_Rule):
    """Points for each new sign-in day, by its place in the streak."""

    kind: Literal["streak"]
    event_type: Literal["sign_in"] = "sign_in"
    steps: list[Annotated[int, Whole(0, 10**9)]] = Field(
        min_length=1, max_length=366, description="Points of the first day, the second, …; the last step holds on."
    )
    cycle: Annotated[int, Whole(1, 366)] | None = Field(
        None, description="After so many days in a row it begins anew: 7, 30, …; null: never."
    )

    @cached_property
    def ladder(self) -> Ladder:
        return Ladder(tuple(self.steps), self.cycle)

    def check(self) -> None:
        """Raises DefinitionError for steps that fall."""
        assert self.ladder


Rule = Annotated[FixedRule | AmountRule | StreakRule, Field(discriminator="kind")]
_RULE: TypeAdapter[FixedRule | AmountRule | StreakRule] = TypeAdapter(Rule)


@lru_cache(maxsize=4096)
def parse_rule(definition: str) -> FixedRule | AmountRule | StreakRule:
    """A stored definition."""
    return _RULE.validate_json(definition)


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One version of an account's rule, in force for deeds from `effective_from` (None: always) until the next one."""

    key: str
    version: int
    rule: FixedRule | AmountRule | StreakRule
    effective_from: datetime | None = None
    created_at: datetime | None = None
    created_by: str | None = None


def in_force(versions: Sequence[RuleVersion], time: datetime) -> RuleVersion | None:
    """Which of a rule's `versions` (oldest first) judges a deed of `time`: the newest that had taken effect."""
    for version in reversed(versions):
        if version.effective_from is None or version.effective_from <= time:
            return version
    return None


def _built_in(key: str, event_type: FixedType, points: int) -> RuleVersion:
    return RuleVersion(key, 1, FixedRule(kind="fixed", event_type=event_type, points=points))


SIGN_IN = RuleVersion("sign_in", 1, StreakRule(kind="streak", steps=[1, 1, 1, 1, 1, 1, 6], cycle=7))
BUILT_IN: Mapping[str, RuleVersion] = {
    rule.key: rule
    for rule in (
        SIGN_IN,
        _built_in("follow", "follow", 10),
        _built_in("like", "like", 1),
        _built_in("comment", "comment", 2),
        _built_in("share", "share", 3),
        _built_in("live_gift", "live.gift", 5),
        _built_in("live_fanclub", "live.fanclub", 5),
        _built_in("survey", "survey.answered", 5),
        _built_in("order_paid", "order.paid", 20),
    )
}
"""Version 1 of what every account has; a version that it stores under the same key comes after it."""

RESERVED = ("spend", "adjustment")
"""What entries that are not earned carry in place of a rule's key."""

EARNING_TYPES = frozenset({*get_args(FixedType), "sign_in"})


class Rules:
    """All rules of one account, found by event type and time."""

    def __init__(self, stored: Iterable[RuleVersion]) -> None:
        self.versions: dict[str, list[RuleVersion]] = {key: [rule] for key, rule in BUILT_IN.items()}
        for version in sorted(stored, key=lambda found: found.version):
            self.versions.setdefault(version.key, []).append(version)
        self._of_type: dict[str, list[str]] = {}
        for key, versions in self.versions.items():
            for event_type in {version.rule.event_type for version in versions}:
                self._of_type.setdefault(event_type, []).append(key)

    def judge(self, event_type: str, time: datetime) -> list[RuleVersion]:
        """The active rules for a deed of this type and time."""
        found = (in_force(self.versions[key], time) for key in self._of_type.get(event_type, ()))
        return [
            version for version in found if version and version.rule.active and version.rule.event_type == event_type
        ]


def points_of(rule: FixedRule | AmountRule, trust: str, amount: tuple[int, str] | None) -> int:
    """What a deed earns before any cap; 0 when it does not meet the rule's conditions."""
    if trust == "client" and not rule.client:
        return 0
    if rule.min_amount and not _reaches(amount, rule.min_amount):
        return 0
    if isinstance(rule, FixedRule):
        return rule.points
    if amount is None or not _reaches(amount, rule.per):
        return 0
    return min(MOST_POINTS, amount[0] // rule.per.amount_minor * rule.points)


def _reaches(amount: tuple[int, str] | None, least: Amount) -> bool:
    return amount is not None and amount[1] == least.currency and amount[0] >= least.amount_minor
