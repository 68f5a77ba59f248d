"""The made-up fans: what each kind of them did, as signed webhooks and as events of our own."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from libs.common.days import DAY
from services.ingest.platforms import douyin_signer

SOURCE = "superfan-demo"
COMMENTS = ("好看！", "求链接", "什么时候直播？", "已下单", "回购第三次了", "👍👍👍")
VIDEOS = tuple(f"@9VwVideo{number:03}" for number in range(1, 9))


@dataclass(frozen=True)
class Role:
    """What a kind of fan has done. Days count back from today; `share` of all fans is of this kind.

    `follow` is how the follow comes: `live` (webhook of today), `late` (webhook of three days ago), `history`
    (imported), `gone` (an unfollow comes before it), `twice`.
    """

    name: str
    share: int
    follow: str
    active_days: tuple[int, ...]
    orders: int = 0


ROLES = (
    Role("newcomer", 16, "live", (0,)),
    Role("regular", 8, "history", tuple(range(20)), orders=2),
    Role("late", 5, "late", (0, 1, 2)),
    Role("gone", 3, "gone", (0,)),
    Role("keen", 2, "twice", (0,)),
    Role("dormant", 3, "history", tuple(range(12, 20)), orders=1),
    Role("lost", 2, "history", tuple(range(40, 45))),
    Role("returned", 1, "history", (0, *range(20, 25))),
)
FOLLOWED_DAYS_AGO = 60


class Post(NamedTuple):
    """What is sent next: a webhook body to sign, or an event of our own."""

    webhook: bytes | None = None
    event: dict[str, Any] | None = None


class Cast:
    """The made-up fans of one day and seed."""

    def __init__(self, today: date, today_begins: datetime, fans: int, seed: int, id_space: str, currency: str) -> None:
        self._begin = today_begins
        self._random = random.Random(f"{today} {seed}")  # noqa: S311 - the same numbers each time are wanted
        self._currency = currency
        self._id_space = id_space
        self._prefix = f"demo-{today:%m%d}-{seed}"
        roles = [role for role in ROLES for _ in range(role.share)]
        self._random.shuffle(roles)
        self.fans = {f"{self._prefix}-{number:02}": roles[number % len(roles)] for number in range(fans)}

    @property
    def subjects(self) -> list[str]:
        return [f"{self._id_space}:{fan}" for fan in self.fans]

    def posts(self) -> Iterator[Post]:
        """Everything in the order in which it is sent."""
        for number, (fan, role) in enumerate(self.fans.items()):
            yield from self._follow(fan, role, number)
            yield from self._deeds(fan, role)

    def _follow(self, fan: str, role: Role, number: int) -> Iterator[Post]:
        # The first minutes of today: at any hour of today that is younger than a day and not in the future.
        at = self._begin + timedelta(seconds=number % 40)
        if role.follow == "history":
            before = at - timedelta(days=FOLLOWED_DAYS_AGO)
            yield self._event("follow", fan, before, {"acquisition": {"channel": "import"}}, backfill=True)
        elif role.follow == "late":
            yield Post(douyin_signer.follow(fan, at - timedelta(days=3)))
        else:
            if role.follow == "gone":
                yield self._event("unfollow", fan, at + timedelta(seconds=60), {})
            yield Post(douyin_signer.follow(fan, at))
            if role.follow == "twice":
                yield Post(douyin_signer.follow(fan, at + timedelta(seconds=90)))

    def _deeds(self, fan: str, role: Role) -> Iterator[Post]:
        chosen = self._random
        for back in role.active_days:
            day = self._begin - back * DAY
            # Today has just begun; the other days are over.
            at = day + timedelta(minutes=4) if back == 0 else day + timedelta(minutes=chosen.randrange(480, 1320))
            video = chosen.choice(VIDEOS)
            length = chosen.randrange(8_000, 60_000)
            watched = {"content_id": video, "watch_ms": chosen.randrange(length), "duration_ms": length}
            yield self._event("view", fan, at, watched)
            if chosen.random() < 0.6:
                yield Post(douyin_signer.like(fan, video, at + timedelta(seconds=8)))
            if chosen.random() < 0.3:
                text, name = chosen.choice(COMMENTS), f"{fan}-c{back}"
                yield Post(douyin_signer.comment(fan, video, name, text, at + timedelta(seconds=20)))
            if role.name in ("regular", "newcomer") and chosen.random() < 0.8:
                yield self._event("sign_in", fan, at + timedelta(seconds=30), {})
        for number, back in enumerate(chosen.sample(role.active_days, role.orders)):
            at = self._begin - back * DAY + timedelta(minutes=4)
            order = {
                "order_id": f"{fan}-o{number}",
                "amount_minor": chosen.randrange(1_900, 29_900, 100),
                "currency": self._currency,
                "kind": "goods",
                "paid_at": at.isoformat(),
            }
            yield self._event("order.paid", fan, at, order)

    def _event(self, name: str, fan: str, at: datetime, data: dict[str, Any], *, backfill: bool = False) -> Post:
        return Post(
            event={
                "specversion": "1.0",
                "id": f"{fan}/{name}/{int(at.timestamp())}",
                "source": SOURCE,
                "type": name,
                "subject": f"{self._id_space}:{fan}",
                "time": at.isoformat(),
                "backfill": backfill,
                "data": data,
            }
        )
