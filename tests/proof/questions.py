"""What an expected table asks of the system, and how its answers are put beside it.

A question is recognised by the columns of the table. It names the accounts to which the events are sent (one data set
may have to be seen through several zones) and gives the fields of each user as wanted and as found.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from tests.proof.files import Table
from tests.support.services import System

Row = dict[str, str]
Fields = dict[str, object]
SHANGHAI = {"zone": "Asia/Shanghai"}
UTC = {"zone": "UTC"}
LONDON = {"zone": "Europe/London"}
BY_ACCOUNT_DAY = {"sign_in_day": "account"}


@dataclass(frozen=True)
class Question:
    """`views`: suffix of an account's name → its settings; the first view is the data set's own.

    `ask(system, account, table)` gives what the system says of each user of one view; `want(row, view)` what the table
    says. `all_users`: whoever the system names beside the users of the table is a difference too.
    """

    name: str
    columns: frozenset[str]
    views: Mapping[str, Mapping[str, str]]
    want: Callable[[Row, str], Fields]
    ask: Callable[[System, str, Table], Awaitable[dict[str, Fields]]]
    all_users: bool = False


def of_subject(subject: str) -> str:
    """The user's name in the tables."""
    return subject.partition(":")[2]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def users_of(system: System, account: str) -> dict[str, Any]:
    """profile's whole state of all users of an account, as an app that keeps a copy reads it."""
    users = await system.pages("profile", "/v1/users", account)
    return {of_subject(user["subjects"][0]): user for user in users}


DEEDS = ("view", "like", "comment", "share", "follow")


def want_deeds(row: Row, _view: str) -> Fields:
    return {
        **{deed: int(row[deed]) for deed in DEEDS},
        "active_days": int(row["active_days_cn"]),
        "longest_run": int(row["longest_streak_cn"]),
        "first": instant(row["first_time"]),
        "last": instant(row["last_time"]),
    }


async def ask_deeds(system: System, account: str, _table: Table) -> dict[str, Fields]:
    return {
        name: {
            **{deed: user["counts"].get(deed, 0) for deed in DEEDS},
            "active_days": user["active_days"],
            "longest_run": user["longest_run"],
            "first": instant(user["first_seen"]),
            "last": instant(user["last_seen"]),
        }
        for name, user in (await users_of(system, account)).items()
    }


def want_remarks(row: Row, _view: str) -> Fields:
    return {"comments": int(row["comments"]), "favourites": int(row["favourites"])}


async def ask_remarks(system: System, account: str, _table: Table) -> dict[str, Fields]:
    return {
        name: {"comments": user["counts"].get("comment", 0), "favourites": user["counts"].get("like", 0)}
        for name, user in (await users_of(system, account)).items()
    }


NO_ORDERS: Mapping[str, Any] = {"orders": 0, "gross_minor": 0, "refunds": 0, "refunded_minor": 0, "net_minor": 0}


def value_of(user: Mapping[str, Any]) -> Mapping[str, Any]:
    """A user's orders in the one currency that these data sets have."""
    values = user["value"]["currencies"]
    assert len(values) <= 1, values
    return values[0] if values else NO_ORDERS


def want_orders(row: Row, _view: str) -> Fields:
    return {
        "orders": int(row["orders"]),
        "spend": int(row["spend_cents"]),
        "first": date.fromisoformat(row["first"]),
        "last": date.fromisoformat(row["last"]),
    }


async def ask_orders(system: System, account: str, _table: Table) -> dict[str, Fields]:
    return {
        name: {
            "orders": value_of(user)["orders"],
            "spend": value_of(user)["gross_minor"],
            "first": instant(user["value"]["first_order"]).date(),
            "last": instant(user["value"]["last_order"]).date(),
        }
        for name, user in (await users_of(system, account)).items()
    }


def want_sales(row: Row, _view: str) -> Fields:
    return {
        "orders": int(row["orders"]),
        "gross": int(row["gross_cents"]),
        "refunds": int(row["refunds"]),
        "refunded": -int(row["refund_cents"]),
        "net": int(row["net_cents"]),
    }


async def ask_sales(system: System, account: str, _table: Table) -> dict[str, Fields]:
    return {
        name: {
            "orders": value_of(user)["orders"],
            "gross": value_of(user)["gross_minor"],
            "refunds": value_of(user)["refunds"],
            "refunded": value_of(user)["refunded_minor"],
            "net": value_of(user)["net_minor"],
        }
        for name, user in (await users_of(system, account)).items()
    }


CHECK_INS = {
    "": ("days_cn", "longest_cn"),
    "-utc": ("days_utc", "longest_utc"),
    "-local": ("days_local", "longest_local"),
}


def want_check_ins(row: Row, view: str) -> Fields:
    days, longest = CHECK_INS[view]
    points = {"points": int(row["points_cn"])} if view == "" else {}
    return {"days": int(row[days]), "longest": int(row[longest]), **points}


async def ask_check_ins(system: System, account: str, table: Table) -> dict[str, Fields]:
    found: dict[str, Fields] = {}
    for name, user in (await users_of(system, account)).items():
        streak = await system.get("rewards", f"/v1/users/{user['user_id']}/streak", account)
        points = await system.get("rewards", f"/v1/users/{user['user_id']}/points", account)
        found[name] = {"days": streak["days"], "longest": streak["longest"], "points": points["balance"]}
    return found


def want_rfm(row: Row, _view: str) -> Fields:
    scores = {f"{letter}_score": int(row[letter]) for letter in "RFM"}
    values = {name: int(row[name]) for name in ("R_days", "F_orders", "M_minor")}
    return {**values, **scores, "class": row["cls"]}


async def ask_rfm(system: System, account: str, table: Table) -> dict[str, Fields]:
    day = table.totals["as_of_local_day"]
    question = {"as_of": f"{day}T12:00:00Z", "window_days": None, "cut": "mean"}
    run = await system.post_json("segmentation", "/v1/rfm/runs", account, question, idempotency_key=f"proof-{day}")
    names = {user["user_id"]: name for name, user in (await users_of(system, account)).items()}
    return {
        names[user["user_id"]]: {
            "R_days": user["r_days"],
            "F_orders": user["f_orders"],
            "M_minor": user["m_minor"],
            "R_score": user["r_score"],
            "F_score": user["f_score"],
            "M_score": user["m_score"],
            "class": user["rfm_class"],
        }
        for user in await system.pages("segmentation", f"/v1/rfm/runs/{run['version']}/users", account)
    }


def columns(names: str) -> frozenset[str]:
    return frozenset(names.split())


QUESTIONS = (
    Question(
        "RFM",
        columns("R_days F_orders M_minor R F M cls"),
        {"": UTC},
        want_rfm,
        ask_rfm,
        all_users=True,
    ),
    Question(
        "deeds and active days",
        columns("view like comment share follow active_days_cn longest_streak_cn first_time last_time"),
        {"": SHANGHAI},
        want_deeds,
        ask_deeds,
        all_users=True,
    ),
    Question(
        "sign-in days and points",
        columns("days_local longest_local days_utc longest_utc days_cn longest_cn points_cn"),
        {"": SHANGHAI | BY_ACCOUNT_DAY, "-utc": UTC | BY_ACCOUNT_DAY, "-local": SHANGHAI},
        want_check_ins,
        ask_check_ins,
        all_users=True,
    ),
    Question(
        "orders and refunds",
        columns("orders gross_cents refunds refund_cents net_cents"),
        {"": LONDON},
        want_sales,
        ask_sales,
        all_users=True,
    ),
    Question("orders", columns("orders spend_cents first last"), {"": UTC}, want_orders, ask_orders, all_users=True),
    Question("comments and favourites", columns("comments favourites posts"), {"": UTC}, want_remarks, ask_remarks),
)


def question_of(table: Table) -> Question | None:
    """What `table` asks, if it is known."""
    return next((question for question in QUESTIONS if question.columns <= table.columns), None)
