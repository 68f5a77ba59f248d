"""Real activity of 347 users of a short-video app against independently computed answers."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from libs.common.db import Sessions
from libs.common.events import AnyEvent, validate_event
from libs.common.identity import resolve
from services.segmentation.domain.lifecycle import DEFAULT, lifecycle
from services.segmentation.store import lifecycle as store
from tests.support.folding import Log, rows
from tests.support.realdata import load_events, load_expected, shuffled_with_repeats

AS_OF = date(2022, 4, 22)
NOW = datetime(2022, 4, 22, 4, tzinfo=UTC)


def as_event(raw: dict[str, Any]) -> AnyEvent:
    return validate_event({**raw, "receivedtime": raw["time"]})


@pytest.mark.parametrize("shuffled", [False, True], ids=["as it arrived", "shuffled, 5 % twice"])
async def test_active_days_and_states(sessions: Sessions, log: Log, shuffled: bool) -> None:
    expected = {f"kuairand:{row['user_id']}": row for row in load_expected("kuairand_dev_users")}
    arrivals = load_events("kuairand")
    if shuffled:
        arrivals = shuffled_with_repeats(arrivals, seed=7)
    events = [as_event(raw) for raw in arrivals]
    for begin in range(0, len(events), 2000):
        await log.apply(events[begin : begin + 2000], partition=begin // 2000 % 3, now=NOW)
    assert await rows(sessions, "dead_letter", "reason") == []

    states: dict[str, int] = {}
    async with sessions() as session:
        for subject, row in expected.items():
            user = await resolve(session, "kuairand", subject)
            days = await store.read_user_days(session, "kuairand", user.subjects, AS_OF)
            assert len(days) == int(row["active_days_cn"]), subject
            # The expected idle time is in days and fractions, up to the midnight that begins the 22nd in Shanghai.
            assert (AS_OF - days[-1]).days == int(float(row["idle_days_at_0422"])) + 1, subject
            state = lifecycle(days, AS_OF).state
            states[state] = states.get(state, 0) + 1
        assert await store.count_members(session, "kuairand", AS_OF, DEFAULT) == states
    announced = [state for (state,) in await rows(sessions, "lifecycle_state", "state")]
    assert {state: announced.count(state) for state in set(announced)} == states
