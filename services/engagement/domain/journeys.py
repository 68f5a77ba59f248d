"""Journeys: what starts a message, to whom it may go, and what it says. Data, in versions that never change."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from services.engagement.domain.gates import QuietOutcome

Lang = Literal["zh", "en"]
Trigger = Literal["follow", "segment.entered"]
Purpose = Literal["service", "marketing", "transactional"]
Entry = Literal["once", "again"]
Status = Literal["draft", "live", "paused", "ended"]
Action = Literal["built_in", "put", "pause", "resume"]

IN_APP = "in_app"


class Text(NamedTuple):
    """What the fan reads: Liquid templates. The texts of a version never change, so a message is rendered when read."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Journey:
    """One version of a journey. Decisions keep the version they were made by, and a message ends on the one it began.

    `channel` is `in_app` or the id of a declared channel. `entry`: whether a user may have its message more than once.
    `quiet`: what becomes of a message that falls into quiet hours.
    """

    key: str
    version: int
    status: Status
    trigger: Trigger
    segment: str | None
    max_age: timedelta
    purpose: Purpose
    channel: str
    step: str
    entry: Entry
    quiet: QuietOutcome
    texts: Mapping[Lang, Text]
    changed_at: datetime | None = None
    changed_by: str | None = None
    action: Action = "built_in"

    @property
    def once(self) -> bool:
        return self.entry == "once"

    @property
    def uses_variables(self) -> bool:
        """Whether its texts are more than plain words."""
        return any("{{" in part or "{%" in part for text in self.texts.values() for part in text)

    def definition(self) -> dict[str, Any]:
        """What is stored of it, beside its key, version and status."""
        return {
            "trigger": self.trigger,
            "segment": self.segment,
            "max_age_seconds": self.max_age // timedelta(seconds=1),
            "purpose": self.purpose,
            "channel": self.channel,
            "step": self.step,
            "entry": self.entry,
            "quiet_hours": self.quiet,
            "texts": {lang: text._asdict() for lang, text in self.texts.items()},
        }


def journey_of(
    key: str,
    version: int,
    status: Status,
    definition: Mapping[str, Any],
    changed_at: datetime | None = None,
    changed_by: str | None = None,
    action: Action = "put",
) -> Journey:
    """The journey that `definition` describes."""
    return Journey(
        key=key,
        version=version,
        status=status,
        trigger=definition["trigger"],
        segment=definition["segment"],
        max_age=timedelta(seconds=definition["max_age_seconds"]),
        purpose=definition["purpose"],
        channel=definition["channel"],
        step=definition["step"],
        entry=definition["entry"],
        quiet=definition["quiet_hours"],
        texts={lang: Text(**text) for lang, text in definition["texts"].items()},
        changed_at=changed_at,
        changed_by=changed_by,
        action=action,
    )


def _built_in(key: str, segment: str | None, hours: int, step: str, texts: Mapping[Lang, Text]) -> Journey:
    return Journey(
        key=key,
        version=1,
        status="live",
        trigger="segment.entered" if segment else "follow",
        segment=segment,
        max_age=timedelta(hours=hours),
        purpose="marketing" if segment else "service",
        channel=IN_APP,
        step=step,
        entry="again" if segment else "once",
        quiet="wait",
        texts=texts,
    )


WELCOME = _built_in(
    "welcome",
    None,
    24,
    "hello",
    {
        "zh": Text("欢迎关注！", "感谢你的关注。每天来签到可以攒积分，新内容会第一时间告诉你。"),
        "en": Text(
            "Welcome!", "Thank you for following us. Sign in every day to collect points; news reaches you first."
        ),
    },
)
REACTIVATION = _built_in(
    "reactivation",
    "lifecycle.dormant",
    48,
    "come_back",
    {
        "zh": Text("好久不见", "这几天更新了不少新内容，有空来看看吧。"),
        "en": Text("It has been a while", "There is a lot that you have not seen yet. Come and have a look."),
    },
)
RECALL = _built_in(
    "recall",
    "lifecycle.lost",
    48,
    "miss_you",
    {
        "zh": Text("我们想你了", "你已经离开一个多月了。回来看看，攒下的积分还在等你。"),
        "en": Text("We miss you", "You have been away for more than a month. Your points are still here for you."),
    },
)
BUILT_IN: Mapping[str, Journey] = {journey.key: journey for journey in (WELCOME, REACTIVATION, RECALL)}
"""What every account has until it stores a version of its own, which is then version 2."""
