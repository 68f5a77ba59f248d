"""The events of every data set through the front door of real processes, in three ways; then every answer compared."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from tests.proof.files import DataSet, Table
from tests.proof.questions import UTC, Question, question_of, users_of
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE, System

WAYS = ("plain", "shuffled", "killed")
REPEATED = 0.05
SECONDS_BETWEEN_KILLS = 4


@dataclass(frozen=True)
class Difference:
    """One field of one user that is not what was expected."""

    account: str
    user: str
    field: str
    found: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.account} {self.user}: {self.field} is {self.found}, expected {self.wanted}"


@dataclass
class Compared:
    """What was compared for one data set, seen in one way."""

    data_set: str
    way: str
    question: str
    users: int
    fields: int
    differences: list[Difference] = field(default_factory=list)


def views_of(data_set: DataSet) -> dict[str, dict[str, str]]:
    """Suffix of an account → its settings, for every zone through which the answers look at a data set."""
    views: dict[str, dict[str, str]] = {"": dict(UTC)}
    for table in data_set.tables:
        question = question_of(table)
        if question is None or question.name == "RFM":
            continue
        views |= {view: dict(settings) for view, settings in question.views.items()}
    for table in data_set.tables:
        zone = table.totals.get("account_zone")
        if zone in available_timezones():
            views[""]["zone"] = ZoneInfo(zone).key
    return {view: {**settings, "currency": data_set.currency} for view, settings in views.items()}


def account_of(data_set: DataSet, view: str, way: str) -> str:
    return f"{data_set.name}{view}" + ("" if way == "plain" else f"-{way}")


def accounts_of(sets: list[DataSet], ways: list[str]) -> dict[str, dict[str, str]]:
    """The accounts to declare."""
    return {
        account_of(data_set, view, way): settings
        for data_set in sets
        for view, settings in views_of(data_set).items()
        for way in ways
    }


def arrivals(events: list[dict[str, Any]], account: str, way: str, seed: int) -> list[dict[str, Any]]:
    """The events as they are sent: in order, or shuffled with 5 % of them twice."""
    sent = [{**event, "account": account} for event in events]
    if way == "shuffled":
        rng = random.Random(f"{seed} {account}")
        sent += rng.sample(sent, int(len(sent) * REPEATED))
        rng.shuffle(sent)
    return sent


@asynccontextmanager
async def workers_killed(system: System) -> AsyncIterator[list[str]]:
    """While inside, each service in turn is ended by SIGKILL and started again; gives the list of those killed."""
    killed: list[str] = []
    over = asyncio.Event()

    async def kill() -> None:
        while not over.is_set() or len(killed) < len(WITH_DATABASE):
            service = WITH_DATABASE[len(killed) % len(WITH_DATABASE)]
            await system.children[service].kill()
            await system.spawn(service)
            await system.wait_ready([service])
            killed.append(service)
            await asyncio.sleep(0 if over.is_set() else SECONDS_BETWEEN_KILLS)

    task = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        over.set()
        await task


async def send(system: System, sets: list[DataSet], way: str, seed: int) -> int:
    """Everything in one way; returns how many events were acknowledged."""
    sent = 0
    for data_set in sets:
        for view in views_of(data_set):
            account = account_of(data_set, view, way)
            events = arrivals(data_set.events, account, way, seed)
            await system.post(account, events)
            sent += len(events)
    await system.applied(1200)
    return sent


async def compare(system: System, data_set: DataSet, way: str) -> AsyncIterator[Compared]:
    """Every answer of one data set beside the expected one."""
    for table in data_set.tables:
        question = question_of(table)
        if question is None:
            yield Compared(data_set.name, way, f"{table.path.name}: not a known form", 0, 0)
            continue
        for view in question.views:
            yield await compare_table(system, account_of(data_set, view, way), view, table, question, way)
    account = account_of(data_set, "", way)
    for name, totals in data_set.totals.items():
        wanted: dict[str, Any] = {key: totals[key] for key in ("rows", "authors") if key in totals}
        if name.startswith("comments_") and wanted:
            users = await users_of(system, account)
            found = {"rows": sum(user["counts"].get("comment", 0) for user in users.values()), "authors": len(users)}
            result = Compared(data_set.name, way, "comments and authors in total", len(users), len(wanted))
            result.differences = list(_differences(account, "all", found, wanted))
            yield result


async def compare_table(
    system: System, account: str, view: str, table: Table, question: Question, way: str
) -> Compared:
    """One table's users and fields, as one account sees them."""
    found = await question.ask(system, account, table)
    wanted = {user: question.want(row, view) for user, row in table.by_user.items()}
    result = Compared(account, way, question.name, len(wanted), sum(map(len, wanted.values())))
    for user, fields in wanted.items():
        result.differences += _differences(account, user, found.get(user, {}), fields)
    if question.all_users:
        unexpected = sorted(found.keys() - wanted.keys())
        result.differences += [Difference(account, user, "user", "there", "absent") for user in unexpected]
    return result


def _differences(account: str, user: str, found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[Difference]:
    for name, value in wanted.items():
        if found.get(name, "absent") != value:
            yield Difference(account, user, name, found.get(name, "absent"), value)


async def prove(sets: list[DataSet], ways: list[str], seed: int, server: TestServer) -> list[Compared]:
    """Start a system, send everything in each of `ways`, compare all answers."""
    system = System(server, accounts_of(sets, ways))
    results: list[Compared] = []
    try:
        await system.start()
        for way in ways:
            began = time.monotonic()
            if way == "killed":
                async with workers_killed(system) as killed:
                    sent = await send(system, sets, way, seed)
                print(f"{way}: {len(killed)} kills while {sent} events arrived")
                await system.wait_ready()
                await system.applied(600)
            else:
                sent = await send(system, sets, way, seed)
            print(f"{way}: {sent} events sent and applied in {time.monotonic() - began:.0f} s")
            for data_set in sets:
                async for result in compare(system, data_set, way):
                    print(
                        f"  {result.data_set:24} {result.question:32} {result.users:6} users {result.fields:7} fields"
                        f" {len(result.differences):5} differences"
                    )
                    results.append(result)
    finally:
        await system.stop()
    return results
