"""What came of one event in each service, read over REST and said in one line."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from libs.cli.connection import PAGE, Connection, RefusedError


class Cause(NamedTuple):
    """The event that is asked about; `received` is when ingest took it."""

    subject: str
    source: str
    id: str
    type: str
    received: datetime


async def read_outcome(connection: Connection, service: str, cause: Cause) -> str:
    """The line of one service; raises LaunchError when it does not answer as it should."""
    try:
        return await _READERS[service](connection, cause)
    except RefusedError as error:
        if error.code == "unknown_user":
            return f"knows nobody called {cause.subject}"
        raise


async def _profile(connection: Connection, cause: Cause) -> str:
    user = await connection.of_user("profile", cause.subject)
    counts = counted(user["counts"])
    return f"{counts}; active on {days(user['active_days'])}, {'follows' if user['following'] else 'does not follow'}"


async def _segmentation(connection: Connection, cause: Cause) -> str:
    memberships = await connection.of_user("segmentation", cause.subject, "/memberships", layering="lifecycle", limit=1)
    if not memberships["current"]:
        return "in no segment"
    segment = memberships["current"][0]
    newest = next(iter(memberships["items"]), None)
    since = f"from {connection.local(segment['since'])} on"
    if newest is None or datetime.fromisoformat(newest["decided_at"]) < cause.received:
        return f"stays in {segment['segment']}, {since}"
    how = "first placement" if newest["initial"] else f"out of {newest['segment_from']}"
    return f"entered {segment['segment']} ({how}), {since}"


async def _engagement(connection: Connection, cause: Cause) -> str:
    if cause.type != "follow":
        return f"no journey starts on {cause.type}"
    decisions = (await connection.get("engagement", "/v1/decisions", user=cause.subject, limit=PAGE))["items"]
    decision = next((item for item in decisions if (item["event"]["source"], item["event"]["id"]) == cause[1:3]), None)
    if decision is None:
        return "no decision about this follow"
    if decision["outcome"] != "sent":
        return f"{decision['journey']} {decision['outcome']}: {why_skipped(decision)}"
    messages = (await connection.of_user("engagement", cause.subject, "/messages", limit=PAGE))["items"]
    title = next((item["title"] for item in messages if item["message_id"] == decision["message_id"]), "?")
    return f"{decision['journey']} sent, {decision['channel']}: “{title}”"


async def _rewards(connection: Connection, cause: Cause) -> str:
    balance = (await connection.of_user("rewards", cause.subject, "/points"))["balance"]
    entries = (await connection.of_user("rewards", cause.subject, "/ledger", limit=PAGE))["items"]
    earned = [
        item for item in entries if item["event"] and (item["event"]["source"], item["event"]["id"]) == cause[1:3]
    ]
    if not earned:
        return f"no points; balance {balance}"
    awards = ", ".join(f"{item['points']:+} by rule {item['rule']} v{item['rule_version']}" for item in earned)
    return f"{awards}; balance {balance}"


def counted(counts: Mapping[str, int]) -> str:
    """`follow 1, like 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing yet"


def days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


def why_skipped(decision: Mapping[str, Any]) -> str:
    """The reason and the values it rests on, those that are known: of the gate that decided, if one did."""
    gate = next((gate for gate in decision["gates"] if gate["verdict"] != "pass"), None)
    found = gate["values"] if gate else decision["values"]
    values = ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)
    return f"{decision['reason']} ({values})" if values else str(decision["reason"])


_READERS: Mapping[str, Callable[[Connection, Cause], Awaitable[str]]] = {
    "profile": _profile,
    "segmentation": _segmentation,
    "engagement": _engagement,
    "rewards": _rewards,
}
