"""Who is in which segment, asked of the database for any day, against the pure rule."""

from datetime import date, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.db import Sessions
from libs.common.events import new_event
from libs.common.identity import user_id_of
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.domain.lifecycle import DEFAULT, STATES, Activity, lifecycle, sum_up
from services.segmentation.store import lifecycle as store
from tests.segmentation.conftest import account_of
from tests.segmentation.support import link
from tests.support.folding import NOW, Log, empty

TODAY = NOW.date()
U1 = user_id_of("demo", "douyin:u1")
USER_OF = {
    "douyin:u1": U1,
    "wechat:u1": U1,
    **{f"douyin:u{n}": user_id_of("demo", f"douyin:u{n}") for n in range(2, 7)},
}
days_ago = st.lists(
    st.one_of(st.integers(-2, 20), st.integers(28, 34), st.integers(0, 80)), min_size=1, max_size=6, unique=True
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(sorted(USER_OF)), days_ago, max_size=7),
    st.lists(st.integers(-45, 45), min_size=1, max_size=4),
    st.integers(1, 3),
)
async def test_members_of_any_day(
    sessions: Sessions, active: dict[str, list[int]], asked: list[int], limit: int
) -> None:
    await empty(sessions)
    await link(sessions, "demo", U1, "douyin:u1", "wechat:u1")
    log = Log("segmentation", sessions, make_handler(account_of), keep_data)
    days: dict[str, set[date]] = {}
    for subject, numbers in active.items():
        days.setdefault(USER_OF[subject], set()).update(TODAY - timedelta(days=n) for n in numbers)
    await log.apply(
        [
            new_event(
                "like",
                account=account,
                source="/t",
                id=f"{subject}-{n}",
                subject=subject,
                time=NOW - timedelta(days=n),
                received=NOW,
                data={},
            )
            for subject, numbers in active.items()
            for n in numbers
            for account in ("demo", "utc")  # the other account must not be counted
        ]
    )

    for on in [TODAY, *(TODAY + timedelta(days=n) for n in asked)]:
        wanted: dict[str, dict[str, Activity]] = {state: {} for state in STATES}
        for user, his in days.items():
            activity = sum_up(day for day in his if day <= on)
            if activity:
                wanted[lifecycle(his, on).state][user] = activity
        async with sessions() as session:
            sizes = await store.count_members(session, "demo", on, DEFAULT)
            assert sizes == {state: len(users) for state, users in wanted.items() if users}
            for state in STATES[1:]:
                found: list[tuple[str, Activity]] = []
                while True:
                    after = found[-1][0] if found else ""
                    page = await store.page_members(session, "demo", state, on, DEFAULT, after, limit)
                    found += page
                    if len(page) < limit:
                        break
                assert found == sorted(wanted[state].items()), (state, on)
