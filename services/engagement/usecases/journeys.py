"""Changing journeys: every change is a new version, with who made it and when."""

from dataclasses import replace
from datetime import datetime

from libs.common.db import AsyncSession
from libs.common.web import Problem, conflict, not_found
from services.engagement.domain.journeys import Journey
from services.engagement.store import journeys as store


async def put_journey(
    session: AsyncSession, account: str, wanted: Journey, if_match: str | None, *, must_be_new: bool = False
) -> Journey:
    """Store `wanted` as the next version, unless the newest one says the same. Raises Problem 412."""
    await store.lock_journey(session, account, wanted.key)
    newest = await _newest(session, account, wanted.key)
    _check_precondition(newest, if_match, must_be_new=must_be_new)
    if newest is not None and newest.status == wanted.status and newest.definition() == wanted.definition():
        return newest
    stored = replace(wanted, version=newest.version + 1 if newest else 1)
    await store.add_version(session, account, stored)
    return stored


async def pause_journey(
    session: AsyncSession, account: str, key: str, if_match: str | None, now: datetime, by: str
) -> Journey:
    """Whatever would start it is skipped from now on, and what waits is cancelled when its time comes."""
    return await _change(session, account, key, if_match, now, by, "paused")


async def resume_journey(
    session: AsyncSession, account: str, key: str, if_match: str | None, now: datetime, by: str
) -> Journey:
    """Undo a pause; what was skipped meanwhile stays so."""
    return await _change(session, account, key, if_match, now, by, "live")


async def _change(
    session: AsyncSession, account: str, key: str, if_match: str | None, now: datetime, by: str, status: str
) -> Journey:
    await store.lock_journey(session, account, key)
    newest = await _newest(session, account, key)
    if newest is None:
        raise unknown_journey(key)
    _check_precondition(newest, if_match)
    if newest.status == status:
        return newest
    if newest.status not in ("live", "paused"):
        raise conflict(
            f"The newest version of the journey {key} is {newest.status}; put a new one.", "journey_not_live"
        )
    stored = replace(
        newest,
        version=newest.version + 1,
        status="paused" if status == "paused" else "live",
        changed_at=now,
        changed_by=by,
        action="pause" if status == "paused" else "resume",
    )
    await store.add_version(session, account, stored)
    return stored


async def _newest(session: AsyncSession, account: str, key: str) -> Journey | None:
    found = await store.read_newest(session, account, [key])
    return found[0] if found else None


def etag(journey: Journey) -> str:
    """The entity tag of a version."""
    return f'"{journey.version}"'


def _check_precondition(newest: Journey | None, if_match: str | None, *, must_be_new: bool = False) -> None:
    if newest is not None and must_be_new:
        raise Problem(412, "precondition_failed", f"The journey {newest.key} exists, in version {newest.version}.")
    check_if_match(newest.version if newest else None, if_match)


def check_if_match(version: int | None, if_match: str | None) -> None:
    """Raises Problem 412 when there is a condition and `version`, None for none, does not meet it."""
    if if_match is None:
        return
    tags = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    if version is None or not ("*" in tags or f'"{version}"' in tags):
        there = "there is none" if version is None else f"the newest one is {version}"
        raise Problem(412, "precondition_failed", f"This is not at the version of If-Match: {there}.")


def unknown_journey(key: str) -> Problem:
    return not_found(f"There is no journey {key}.", "unknown_journey")
