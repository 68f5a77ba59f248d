"""The database against a plain model: any order, repetition and split of the events gives the same facts."""

from collections import defaultdict
from datetime import date
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.db import Sessions
from libs.common.events import ACTIVE_TYPES, AnyEvent
from libs.common.identity import user_id_of
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.domain.lifecycle import lifecycle
from services.segmentation.domain.segments import midnight
from tests.segmentation.conftest import account_of
from tests.segmentation.support import LIFECYCLE_MOVES, event, link, notices
from tests.support.folding import NOW, Log, arrivals, empty, rows

PAIR = ("douyin:u1", "wechat:u1")
SUBJECTS = (*PAIR, "douyin:u2")
USER_OF = {
    (account, subject): user_id_of(account, "douyin:u1" if subject in PAIR else subject)
    for account in ("demo", "utc")
    for subject in SUBJECTS
}
TYPES = ("follow", "unfollow", "view", "like", "order.paid", "survey.answered")

deeds = st.tuples(
    st.sampled_from([t for t in TYPES if t != "survey.answered"]),
    st.sampled_from(SUBJECTS),
    st.sampled_from(["demo", "utc"]),
    # Around the thresholds, around midnight of both zones, and a little into the future.
    st.builds(
        lambda days, hours: days + hours / 24,
        st.sampled_from([-1, 0, 1, 6, 7, 8, 9, 16, 17, 30, 31, 40]),
        st.sampled_from([-13, -4, 0, 4, 5, 11, 12, 13, 20]),
    ),
)


def model(events: list[AnyEvent]) -> tuple[set[tuple[str, str, date]], dict[tuple[str, str], set[date]]]:
    """Active days by subject, and by user."""
    by_subject, by_user = set(), defaultdict(set)
    for e in events:
        if e.type in ACTIVE_TYPES and e.subject:
            day = e.time.astimezone(account_of(e.account).zone).date()
            by_subject.add((e.account, e.subject, day))
            by_user[e.account, USER_OF[e.account, e.subject]].add(day)
    return by_subject, by_user


def expected_row(account: str, user_id: str, days: set[date]) -> tuple[Any, ...]:
    zone = account_of(account).zone
    today = NOW.astimezone(zone).date()
    ordered = sorted(days)
    returns = [d for before, d in zip(ordered, ordered[1:], strict=False) if (d - before).days >= 9]  # noqa: RUF007
    placement = lifecycle(days, today)
    since = midnight(placement.since_day, zone) if placement.since_day else None
    flips = [d for d in (placement.flips_on, *ordered) if d and d > today]
    return (
        *(account, user_id, ordered[0], ordered[-1], max(returns, default=None)),
        *(placement.state, since, min(flips, default=None)),
    )


STATE = "account, user_id, first_day, last_day, returned_day, state, since, flips_on"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_any_order_repetition_and_split(sessions: Sessions, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(deeds, max_size=12))
    events = [
        event(f"e{n}", ago, type=kind, subject=subject, account=account)
        for n, (kind, subject, account, ago) in enumerate(drawn)
    ]
    await empty(sessions)
    for account in ("demo", "utc"):
        await link(sessions, account, user_id_of(account, PAIR[0]), *PAIR)
    log = Log("segmentation", sessions, make_handler(account_of), keep_data)
    for number, batch in enumerate(data.draw(arrivals(events))):
        await log.apply(batch, partition=number % 2)

    by_subject, by_user = model(events)
    assert await rows(sessions, "dead_letter", "reason") == []
    assert set(await rows(sessions, "active_day", "account, subject, day")) == by_subject
    wanted = [expected_row(*user, days) for user, days in by_user.items()]
    assert await rows(sessions, "lifecycle_state", STATE) == sorted(wanted, key=repr)
    for (account, user_id), days in by_user.items():
        await check_chain(sessions, account, user_id, days)


async def check_chain(sessions: Sessions, account: str, user_id: str, days: set[date]) -> None:
    """Notices and history of one user: no revision missing or twice, left what was entered, last = his state."""
    told = [notice for notice in await notices(sessions, user_id) if notice["account"] == account]
    assert [notice["data"]["revision"] for notice in told] == list(range(1, len(told) + 1))
    assert [notice["type"] for notice in told] == ["segment.entered", "segment.left"] * (len(told) // 2) + [
        "segment.entered"
    ] * (len(told) % 2)
    for entered, left in zip(told[::2], told[1::2], strict=False):
        assert entered["data"]["segment"] == left["data"]["segment"]
    assert [n for n, notice in enumerate(told) if notice["data"]["initial"]] == ([0] if told else [])
    assert len({notice["id"] for notice in told}) == len(told)

    state = lifecycle(days, NOW.astimezone(account_of(account).zone).date()).state
    assert (told[-1]["data"]["segment"] if told else "lifecycle.none") == f"lifecycle.{state}"
    history = [
        row[2:]
        for row in await rows(sessions, LIFECYCLE_MOVES, "account, user_id, revision, segment_from, segment_to")
        if row[:2] == (account, user_id)
    ]
    segments = [notice["data"]["segment"] for notice in told[::2]]
    assert sorted(history) == [
        (2 * n + 1, segments[n - 1] if n else None, segment) for n, segment in enumerate(segments)
    ]
