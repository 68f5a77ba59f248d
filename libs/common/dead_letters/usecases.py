"""What operators do with dead letters. Each action is a transaction of its own.

Locks are taken in the consumer's order: event, state, letter. So a redrive and a consumer that meets the same event
wait for each other, never in a circle.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog
from prometheus_client import Counter
from pydantic import ValidationError

from libs.common.consumer.transaction import Applier, is_retryable
from libs.common.dead_letters import store
from libs.common.dead_letters.store import Filter, Letter
from libs.common.events import EVENT_TYPES, Problem, Trust, parse_event, problems

log = structlog.get_logger(__name__)

ACTIONS = Counter(
    "superfan_dead_letter_actions_total",
    "What operators did: edited, dropped, or redriven with the outcome applied, already_applied or failed",
    ["service", "action"],
)

Outcome = Literal["applied", "already_applied", "failed", "dropped", "unknown", "changed"]


class UnknownLetterError(LookupError):
    """No such letter in this account."""


class NobodysLetterError(Exception):
    """The letter names no account, so nobody may make an event of it."""


class ChangedMeanwhileError(Exception):
    """Somebody else edited or dropped the letter while this was going on; nothing was done."""


class InvalidEventError(Exception):
    """The corrected event is not valid; `problems` says where."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__(f"{len(found)} problems")
        self.problems = found


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts: named in the log."""

    account: str
    key_id: str
    trust: Trust


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one letter; `error` and `reason` of a failure."""

    digest: bytes
    outcome: Outcome
    error: str | None = None
    reason: str | None = None


async def redrive(
    applier: Applier, operator: Operator, digest: bytes, now: datetime, *, dry_run: bool = False
) -> Result:
    """Apply the letter's event as the consumer would, and delete the letter; on failure keep it with the new reason.

    `dry_run` does all of it and rolls back. An event that was applied meanwhile counts as success and not again.
    Raises UnknownLetterError, NobodysLetterError, ChangedMeanwhileError, and what `is_retryable` accepts.
    """
    arrived = None
    async with applier.sessions() as session:
        letter = await store.find(session, operator.account, digest)
        if letter is None:
            if await store.is_applied(session, operator.account, digest):
                return Result(digest, "already_applied")
            raise UnknownLetterError
        if letter.account is None:
            raise NobodysLetterError
        applied_as = digest
        try:
            event = parse_event(letter.value or b"")
            if event.account != operator.account:
                raise ValueError("the event is of another account")
            applied_as = event.digest
            async with session.begin_nested():
                arrived = await applier.fold(session, [event], now)
            result = Result(digest, "applied" if arrived.new else "already_applied")
        except Exception as error:
            if is_retryable(error):
                raise
            result = Result(digest, "failed", type(error).__name__, store.reason_of(error))
            if not dry_run:
                await store.fail(session, letter, error, now)
        if dry_run:
            await session.rollback()
            return result
        if arrived is not None and not await store.remove(session, letter):
            await session.rollback()
            gone = await store.find(session, operator.account, digest) is None
            if gone and await store.is_applied(session, operator.account, applied_as):
                return Result(digest, "already_applied")
            raise ChangedMeanwhileError
        await session.commit()
    if arrived is not None:
        applier.count(arrived)
    _tell(applier, operator, letter, result.outcome, failure=result.reason)
    return result


async def edit(applier: Applier, operator: Operator, digest: bytes, raw: bytes, now: datetime) -> Letter:
    """Put the corrected event, `raw` JSON, in the letter's place: same identity and topic, no more trust than before.

    Raises UnknownLetterError, NobodysLetterError, InvalidEventError, ChangedMeanwhileError.
    """
    async with applier.sessions() as session:
        letter = await store.find(session, operator.account, digest)
        if letter is None:
            raise UnknownLetterError
        if letter.account is None:
            raise NobodysLetterError
        try:
            event = parse_event(raw)
        except ValidationError as error:
            raise InvalidEventError(problems(error)) from None
        old = store.read_attributes(letter.value, letter.key)
        trust = old.trust if old.trust in ("platform", "server", "client") else operator.trust
        kept = {"account": letter.account, "source": old.source, "id": old.id, "trust": trust}
        found = [
            Problem(f"/{name}", f"must stay {value!r}")
            for name, value in kept.items()
            if value is not None and getattr(event, name) != value
        ]
        if EVENT_TYPES[event.type].topic != letter.topic:
            found.append(Problem("/type", f"must be a type of the topic {letter.topic}"))
        if found:
            raise InvalidEventError(found)
        if not await store.edit(session, letter, event, now):
            raise ChangedMeanwhileError
        edited = await store.find(session, operator.account, digest)
        await session.commit()
    assert edited is not None
    _tell(applier, operator, edited, "edited")
    return edited


async def drop(applier: Applier, operator: Operator, digest: bytes, reason: str) -> Result:
    """Delete the letter for good; the log says who and why. Raises UnknownLetterError, ChangedMeanwhileError."""
    async with applier.sessions() as session:
        letter = await store.find(session, operator.account, digest)
        if letter is None:
            raise UnknownLetterError
        if not await store.remove(session, letter):
            raise ChangedMeanwhileError
        await session.commit()
    _tell(applier, operator, letter, "dropped", why=reason)
    return Result(digest, "dropped")


@dataclass(frozen=True, slots=True)
class Many:
    """What became of each letter; `last` is the (first_at, digest) to go on after, None when all are done."""

    results: list[Result]
    last: tuple[datetime, bytes] | None


async def each(
    applier: Applier,
    operator: Operator,
    which: Filter,
    before: tuple[datetime, bytes] | None,
    limit: int,
    act: Callable[[bytes], Awaitable[Result]],
) -> Many:
    """`act` on up to `limit` of the account's letters, newest first, each in its own transaction.

    An infrastructure failure ends it early; raised only when nothing was done before it.
    """
    async with applier.sessions() as session:
        letters = await store.page(session, operator.account, which, before, limit + 1, with_nobodys=False)
    results: list[Result] = []
    for letter in letters[:limit]:
        try:
            results.append(await act(letter.digest))
        except UnknownLetterError:
            results.append(Result(letter.digest, "unknown"))
        except ChangedMeanwhileError:
            results.append(Result(letter.digest, "changed"))
        except Exception as error:
            if not is_retryable(error) or not results:
                raise
            log.warning("dead letters are left for the next call", error=repr(error)[:300])
            break
    done = len(results)
    last = letters[done - 1] if 0 < done < len(letters) else None
    return Many(results, (last.first_at, last.digest) if last else None)


def _tell(applier: Applier, operator: Operator, letter: Letter, action: str, **more: str | None) -> None:
    ACTIONS.labels(applier.service, action).inc()
    log.info(
        f"a dead letter was {'redriven' if action in ('applied', 'already_applied', 'failed') else action}",
        letter=letter.digest.hex(),
        event_trace_id=store.trace_id_in(letter.value),
        action=action,
        type=letter.type,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        account=operator.account,
        key_id=operator.key_id,
        **more,
    )
