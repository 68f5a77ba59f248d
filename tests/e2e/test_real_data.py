"""Real events through HTTP: every figure of every user equals the one that was computed elsewhere.

The short form of `make proof`. The orders of CDNOW come with a package, so they are compared on every machine.
"""

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.cli.demo import cdnow
from tests.proof.files import DataSet, load_folder
from tests.proof.questions import QUESTIONS, question_of, users_of
from tests.proof.run import Compared, account_of, arrivals, compare, compare_table, views_of
from tests.support.realdata import DATA, need_data
from tests.support.services import System

SEED = 20220407
WAYS = {"kuairand": "plain", "tigerbeetle": "shuffled", "retail": "shuffled"}


@pytest.fixture(scope="module")
async def sets(system: System) -> dict[str, DataSet]:
    """The data sets, sent and applied."""
    need_data()
    found = {one.name: one for one in load_folder(DATA / "events", DATA / "expected") if one.name in WAYS}
    for name, way in WAYS.items():
        for view in views_of(found[name]):
            account = account_of(found[name], view, way)
            await system.post(account, arrivals(found[name].events, account, way, SEED))
    await system.applied()
    return found


@pytest.mark.parametrize("name", WAYS)
async def test_every_answer_is_the_expected_one(system: System, sets: dict[str, DataSet], name: str) -> None:
    results = [result async for result in compare(system, sets[name], WAYS[name])]
    assert sum(result.fields for result in results) > 400
    assert [str(difference) for result in results for difference in result.differences] == []


async def test_a_wrong_answer_is_named_with_its_user_and_field(system: System, sets: dict[str, DataSet]) -> None:
    table = sets["retail"].tables[0]
    question = question_of(table)
    assert question is not None
    rows = [dict(row) for row in table.rows]
    user = next(iter(rows[7].values()))
    rows[7]["orders"] = "1000"
    rows.pop(8)

    result: Compared = await compare_table(
        system, "retail-shuffled", "", replace(table, rows=rows), question, WAYS["retail"]
    )

    missing = next(iter(table.rows[8].values()))
    assert [(one.user, one.field, one.wanted) for one in result.differences] == [
        (user, "orders", 1000),
        (missing, "user", "absent"),
    ]


async def test_kuairand_lifecycle_as_of_its_last_day(system: System, sets: dict[str, DataSet]) -> None:
    """segmentation counts the same active days as profile, and its lifecycle can be asked for a past day."""
    differences = []
    for row in sets["kuairand"].tables[0].rows[::7]:
        path = f"/v1/users/kuairand:{row['user_id']}/lifecycle"
        answer = await system.get("segmentation", path, "kuairand", as_of="2022-04-21T23:00:00+08:00")
        if answer["active_days"] != int(row["active_days_cn"]):
            differences.append((row["user_id"], answer["active_days"], row["active_days_cn"]))
    assert differences == []


async def test_cdnow_orders_out_of_their_package(system: System) -> None:
    """Orders, spend, first and last of each of the 2,357 customers, straight from the lines of the file."""
    orders = cdnow.read(cdnow.fetch(print))
    zone = ZoneInfo("Asia/Shanghai")
    today = cdnow.LAST_DAY + timedelta(days=1)  # the days as they were
    await system.post("cdnow", list(cdnow.events(orders, today, zone, "CNY", "/cdnow")))
    await system.applied()

    number, spent = Counter[str](), Counter[str]()
    days: dict[str, list[date]] = {}
    for order in orders:
        name = str(order.customer)
        number[name] += 1
        spent[name] += order.cents
        days.setdefault(name, []).append(order.day)
    found = await users_of(system, "cdnow")

    def local_day(text: str) -> date:
        return datetime.fromisoformat(text).astimezone(zone).date()

    answers: dict[str, tuple[Any, ...]] = {
        name: (
            user["value"]["orders"],
            user["value"]["currencies"][0]["gross_minor"],
            local_day(user["value"]["first_order"]),
            local_day(user["value"]["last_order"]),
        )
        for name, user in found.items()
    }
    assert answers == {name: (number[name], spent[name], min(on), max(on)) for name, on in days.items()}
    assert (len(answers), number.total(), spent.total()) == (2357, 6919, 24_409_194)


def test_every_form_of_answers_is_known() -> None:
    need_data()
    tables = [table for one in load_folder(DATA / "events", DATA / "expected") for table in one.tables]
    assert {question.name for table in tables if (question := question_of(table))} == {one.name for one in QUESTIONS}
    assert all(question_of(table) for table in tables)
