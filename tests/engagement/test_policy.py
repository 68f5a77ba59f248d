"""The contact policy of an account: in versions, in effect from the next decision on, for what waits too."""

from typing import Any

import httpx
import pytest

from libs.common.db import Sessions
from services.engagement.domain.gates import DEFAULT_POLICY
from services.engagement.domain.policies import policy_of, stored_form
from tests.engagement.support import HOUR, event, segment, wake
from tests.support.folding import NOW, Log, rows
from tests.support.web import OTHER_KEY, READ_KEY, client, places, problem

PATH = "/v1/contact-policy"


def body(**changes: Any) -> dict[str, Any]:
    return stored_form(DEFAULT_POLICY) | changes


def test_what_is_stored_is_what_is_read() -> None:
    assert policy_of(stored_form(DEFAULT_POLICY)) == DEFAULT_POLICY


async def test_a_policy_is_stored_in_versions(api: httpx.AsyncClient, app: Any) -> None:
    first = await api.get(PATH)
    assert (first.headers["etag"], first.json()["changed_by"]) == ('"1"', None)
    assert {name: first.json()[name] for name in body()} == body()
    stored = await api.put(PATH, json=body(minimum_gap_seconds=60), headers={"If-Match": '"1"'})
    assert (stored.status_code, stored.headers["etag"], stored.json()["changed_by"]) == (200, '"2"', "test")
    assert (await api.get(PATH)).json() == stored.json()
    assert (await api.put(PATH, json=body(minimum_gap_seconds=60))).headers["etag"] == '"2"'
    late = await api.put(PATH, json=body(), headers={"If-Match": '"1"'})
    problem(late, 412, "precondition_failed")
    async with client(app, OTHER_KEY) as other:
        assert (await other.get(PATH)).headers["etag"] == '"1"'
    async with client(app, READ_KEY) as reader:
        problem(await reader.put(PATH, json=body()), 403, "missing_scope")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"minimum_gap_seconds": -1}, "/minimum_gap_seconds"),
        ({"caps": [{"window_seconds": 3600, "most": 0}]}, "/caps/0/most"),
        ({"caps": [{"window_seconds": 3600, "most": 1, "purpose": "transactional"}]}, "/caps/0/purpose"),
        ({"quiet_hours": {"start": "24:00", "end": "08:00", "spread_seconds": 0}}, "/quiet_hours/start"),
    ],
)
async def test_what_is_wrong_is_pointed_at(api: httpx.AsyncClient, changes: dict[str, Any], pointer: str) -> None:
    assert places(problem(await api.put(PATH, json=body(**changes)), 422, "invalid_request")) == [pointer]


async def test_it_counts_for_new_decisions_and_for_what_waits(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    async def decided() -> list[tuple[Any, ...]]:
        found = await rows(sessions, "decision", "journey, outcome, reason, turn")
        return [row for row in found if row[0] != "welcome"]

    await log.apply([event("a", HOUR)])
    await log.apply([segment()])
    assert await decided() == [("reactivation", "held", "minimum_gap", 1)]
    month = {"window_seconds": 30 * 86400, "most": 1, "purpose": None, "channel": "in_app"}
    assert (await api.put(PATH, json=body(caps=[month]))).status_code == 200
    await wake(sessions, NOW + 4 * HOUR)
    # the welcome of the same channel fills the month, and the message would not keep so long
    assert await decided() == [
        ("reactivation", "held", "minimum_gap", 1),
        ("reactivation", "skipped", "frequency_cap", 2),
    ]
    await api.put(PATH, json=body(caps=[], minimum_gap_seconds=0))
    await log.apply([segment("lifecycle.lost", revision=4, since=NOW + 4 * HOUR)], now=NOW + 4 * HOUR)
    assert ("recall", "sent", None, 1) in await decided()
    shown = (await api.post("/v1/decisions/preview", json={"user": "douyin:u1", "journey": "recall"})).json()
    assert [gate["values"] for gate in shown["gates"]][3]["gap_seconds"] == 0
