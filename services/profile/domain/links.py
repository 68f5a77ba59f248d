"""Which subjects are one person: identifiers, their limits, and what is decided when two groups meet.

Identifiers are facts. Whether an identifier links its subject to those who showed it before is a decision, made once,
on what was known then, and kept with those values.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import Any, Literal, NamedTuple

from libs.common.events import AnyEvent

Trust = Literal["platform", "server", "client"]
Outcome = Literal["linked", "dropped", "unlinked"]
Why = Literal["first", "evidence", "explicit", "blocked_value", "over_limit", "taken_apart"]
SubjectKey = tuple[str, str]
"""(account, subject)"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of identifier. A person has at most `limit` of them, in each id space if `per_space`. If it `links`, a
    common one makes two subjects one person."""

    name: str
    limit: int
    per_space: bool
    links: bool


OPEN_ID = Kind("open_id", 1, per_space=True, links=False)
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("union_id", 1, per_space=True, links=True),
        Kind("login_id", 1, per_space=True, links=True),
        Kind("phone", 2, per_space=False, links=False),
        Kind("email", 2, per_space=False, links=False),
        Kind("device_id", 5, per_space=False, links=False),
    )
}
"""Identifiers among the traits, by the name of the trait, the most trusted first. A subject itself is the open_id."""

BLOCKED = frozenset({"", "-1", "null", "none", "nil", "nan", "n/a", "na", "undefined", "unknown", "anonymous", "guest"})
LONGEST = 200


class Identifier(NamedTuple):
    """`space` is empty for kinds that have none."""

    account: str
    kind: str
    space: str
    value: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A subject showed an identifier: the evidence, and the event that brought it."""

    identifier: Identifier
    subject: str
    time: datetime
    trust: Trust
    event: AnyEvent

    @property
    def key(self) -> SubjectKey:
        return self.identifier.account, self.subject


def is_blocked(value: str) -> bool:
    """Whether a value stands for "not known", as apps send it: `0`, `null`, `unknown`, only zeros, too long, …"""
    plain = value.strip().casefold()
    return plain in BLOCKED or not plain.strip("0-.: ") or len(plain) > LONGEST or not plain.isprintable()


def shown_by(event: AnyEvent, login_space: str) -> list[Shown]:
    """The identifiers in an event's traits; none from a public key.

    A trait is text, or `{"space": …, "id": …}`; a phone, an e-mail address or a device may be a list. Without a space,
    a union id belongs to the platform of the subject (the id space up to its first dot), a login to `login_space`.
    """
    if event.type != "profile.traits" or event.trust == "client":
        return []
    assert event.subject is not None
    own = {"union_id": event.subject.partition(":")[0].partition(".")[0], "login_id": login_space}
    found: dict[Identifier, Shown] = {}
    for kind in KINDS.values():
        value = event.data.traits.get(kind.name)
        values = value if isinstance(value, list) and not kind.per_space else [value]
        for one in values:
            space, text = own.get(kind.name, ""), one
            if kind.per_space and isinstance(one, dict):
                given, text = one.get("space"), one.get("id")
                space = given.strip() if isinstance(given, str) and given.strip() else space
            if isinstance(text, str):
                identifier = Identifier(event.account, kind.name, space[:LONGEST], _normal(kind.name, text))
                found[identifier] = Shown(identifier, event.subject, event.time, event.trust, event)
    return list(found.values())


def _normal(kind: str, value: str) -> str:
    value = value.strip()
    if kind == "email":
        value = value.casefold()
    if kind == "phone":
        value = "".join(character for character in value if character not in " -()")
    return value[: LONGEST + 1]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one identifier of a subject, or of the subject itself (`identifier` None: decided over REST)."""

    subject: str
    identifier: Identifier | None
    outcome: Outcome
    why: Why
    values: dict[str, Any]
    cause: AnyEvent | None = None


@dataclass(eq=False, slots=True)
class Group:
    """The subjects of one person. `held`: identifiers that link, by (kind, space). `revision`: the highest that any of
    the subjects was told with."""

    account: str
    subjects: set[str]
    revision: int = 0
    held: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    changed_by: AnyEvent | None = None
    changed: bool = False


class Conflict(NamedTuple):
    """Why two groups stay apart, with the values that decide."""

    why: Why
    values: dict[str, Any]


class Groups:
    """The groups that a batch is about, as they are and as they become.

    `decided`: identifier → subject → the newest outcome. `apart`: pairs of subjects, both ways, that were taken apart.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        decided: Mapping[Identifier, Mapping[str, Outcome]],
        apart: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self.of: dict[SubjectKey, Group] = {
            (group.account, subject): group for group in groups for subject in group.subjects
        }
        self._decided = {identifier: dict(outcomes) for identifier, outcomes in decided.items()}
        self._apart = frozenset(apart)

    def changed(self) -> list[Group]:
        """Those that have other subjects now, in order."""
        groups = {id(group): group for group in self.of.values() if group.changed}
        return sorted(groups.values(), key=lambda group: (group.account, min(group.subjects)))

    def show(self, shown: Shown) -> Decision | None:
        """Take in a piece of evidence; None when it was decided before."""
        identifier, subject = shown.identifier, shown.subject
        outcomes = self._decided.setdefault(identifier, {})
        if subject in outcomes:
            return None
        if is_blocked(identifier.value):
            return self._decide(shown, "dropped", "blocked_value", {})
        group = self.of[shown.key]
        holder = next((other for other, outcome in sorted(outcomes.items()) if outcome == "linked"), None)
        other = group if holder is None else self.of[identifier.account, holder]
        if other is group:
            conflict = _over_limit(group, {(identifier.kind, identifier.space): {identifier.value}})
        else:
            conflict = self.conflict(group, other)
        if conflict:
            return self._decide(shown, "dropped", conflict.why, conflict.values)
        group.held[identifier.kind, identifier.space].add(identifier.value)
        values = {}
        if other is not group:
            values = {"subjects": sorted(group.subjects | other.subjects)}
            self.merge(group, other, shown.event)
        return self._decide(shown, "linked", "first" if holder is None else "evidence", values)

    def conflict(self, one: Group, other: Group, *, explicit: bool = False) -> Conflict | None:
        """What keeps two groups apart; an `explicit` link passes over an earlier unlink."""
        if not explicit:
            pairs = ((a, b) for a in sorted(one.subjects) for b in sorted(other.subjects))
            parted = next((pair for pair in pairs if (one.account, *pair) in self._apart), None)
            if parted:
                return Conflict("taken_apart", {"subjects": list(parted)})
        return _same_space(one, other) or _over_limit(one, other.held)

    def merge(self, one: Group, other: Group, cause: AnyEvent | None = None) -> None:
        """Make two groups one."""
        one.subjects |= other.subjects
        one.revision = max(one.revision, other.revision)
        for key, values in other.held.items():
            one.held[key] |= values
        one.changed, one.changed_by = True, cause
        self.of.update({(one.account, subject): one for subject in other.subjects})

    def _decide(self, shown: Shown, outcome: Outcome, why: Why, values: dict[str, Any]) -> Decision:
        self._decided[shown.identifier][shown.subject] = outcome
        return Decision(shown.subject, shown.identifier, outcome, why, values, shown.event)


def _same_space(one: Group, other: Group) -> Conflict | None:
    spaces = {subject.partition(":")[0]: subject for subject in sorted(one.subjects)}
    for subject in sorted(other.subjects):
        space = subject.partition(":")[0]
        if space in spaces:
            values = {"kind": OPEN_ID.name, "space": space, "limit": OPEN_ID.limit}
            return Conflict("over_limit", {**values, "subjects": sorted([spaces[space], subject])})
    return None


def _over_limit(group: Group, more: Mapping[tuple[str, str], set[str]]) -> Conflict | None:
    for (kind, space), values in sorted(more.items()):
        together = group.held.get((kind, space), set()) | values
        if len(together) > KINDS[kind].limit:
            values_of = {"kind": kind, "space": space, "limit": KINDS[kind].limit, "values": sorted(together)}
            return Conflict("over_limit", values_of)
    return None


def by_time(shown: Iterable[Shown]) -> list[Shown]:
    """The order in which evidence of one batch is looked at: by time, source and id; of one event the most trusted kind
    first, so that the least is dropped when there is one too many."""
    ranks = {name: rank for rank, name in enumerate(KINDS)}
    return sorted(
        shown, key=lambda one: (one.time, one.event.source, one.event.id, ranks[one.identifier.kind], one.identifier)
    )


def parting(subjects: Sequence[str], taken: Iterable[str]) -> list[tuple[str, str]]:
    """All pairs, both ways, of a subject that is taken out and one that stays."""
    out = set(taken)
    pairs = [pair for pair in combinations(subjects, 2) if len(out & set(pair)) == 1]
    return sorted([*pairs, *(pair[::-1] for pair in pairs)])


class Known(NamedTuple):
    """An identifier of a subject, as a fact: when it was first and last shown, and how well that is known."""

    kind: str
    space: str
    value: str
    subject: str
    first_time: datetime
    last_time: datetime
    trust: Trust


def held_of(known: Iterable[Known]) -> dict[Known, bool]:
    """Which identifiers of a person count where the kind does not link: those shown last, up to its limit."""
    by_kind: dict[str, dict[str, datetime]] = defaultdict(dict)
    known = list(known)
    for one in known:
        last = by_kind[one.kind]
        last[one.value] = max(last.get(one.value, one.last_time), one.last_time)
    kept = {
        kind: {value for value, _ in sorted(last.items(), key=lambda item: (item[1], item[0]))[-KINDS[kind].limit :]}
        for kind, last in by_kind.items()
    }
    return {one: one.value in kept[one.kind] for one in known}
