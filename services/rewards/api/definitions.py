"""Earn rules and levels as data, and the audit of the ledger."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from libs.common.days import local_day
from libs.common.web import Problem, invalid, not_found, problems
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep
from services.rewards.api import ReaderDep, WriterDep
from services.rewards.domain import levels as level_domain
from services.rewards.domain import rules as domain
from services.rewards.domain.errors import DefinitionError
from services.rewards.schemas import definitions as schemas
from services.rewards.store import audit, definitions
from services.rewards.usecases import definitions as usecases

router = APIRouter()

Key = Annotated[
    str,
    Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="key of the rule", examples=["comment"]),
]
IfMatch = Annotated[
    str | None,
    Header(
        description='ETag of the version that is to be replaced, such as `"2"`; `"0"`: there is none yet. '
        "Without it the newest is replaced, whatever it is.",
        examples=['"2"'],
    ),
]
CHANGED = problems(404, 409, 412)


@router.get("/v1/rules", summary="What earns points", tags=["rules"])
async def list_rules(caller: ReaderDep, session: ReadSessionDep) -> schemas.RuleVersions:
    """The newest version of each rule. Entries keep the version that gave them."""
    rules = (await definitions.read_rules(session, [caller.account.name]))[caller.account.name]
    return schemas.RuleVersions(items=[_rule(versions[-1]) for versions in rules.versions.values()])


@router.get("/v1/rules/{rule_key}", summary="One earn rule", tags=["rules"], responses=problems(404))
async def get_rule(
    rule_key: Key,
    caller: ReaderDep,
    session: ReadSessionDep,
    response: Response,
    version: Annotated[int | None, Query(ge=1, description="the newest if absent")] = None,
) -> schemas.RuleVersion:
    """A version of a rule; its number is the ETag."""
    found = await _versions(session, caller.account.name, rule_key)
    chosen = found[-1] if version is None else next((one for one in found if one.version == version), None)
    if chosen is None:
        raise not_found(f"The rule {rule_key} has no version {version}.", "unknown_version")
    response.headers["ETag"] = f'"{chosen.version}"'
    return _rule(chosen)


@router.get("/v1/rules/{rule_key}/versions", summary="How a rule has changed", tags=["rules"], responses=problems(404))
async def list_rule_versions(rule_key: Key, caller: ReaderDep, session: ReadSessionDep) -> schemas.RuleVersions:
    """Every version, the newest first, with who stored it and when."""
    found = await _versions(session, caller.account.name, rule_key)
    return schemas.RuleVersions(items=[_rule(version) for version in reversed(found)])


@router.put("/v1/rules/{rule_key}", summary="Change or add an earn rule", tags=["rules"], responses=CHANGED)
async def put_rule(
    rule_key: Key,
    caller: WriterDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    response: Response,
    body: schemas.RuleBody,
    if_match: IfMatch = None,
) -> schemas.RuleVersion:
    """Stores a new version; the same definition again changes nothing. A deed is judged by the version in force at its
    time, as far as it is stored when the deed becomes known; what has been booked stays."""
    if rule_key in domain.RESERVED:
        raise invalid("is the name of what entries over REST are booked by", parameter="path/rule_key")

    async def act() -> schemas.RuleVersion:
        try:
            stored = await usecases.put_rule(
                session,
                caller.account.name,
                rule_key,
                body.rule,
                body.effective_from,
                _expected(if_match),
                datetime.now(UTC),
                caller.key_id,
            )
        except DefinitionError as error:
            raise invalid(error.detail, pointer=f"/rule{error.pointer}") from None
        except usecases.VersionChangedError as error:
            raise _changed(error.version) from None
        response.headers["ETag"] = f'"{stored.version}"'
        return _rule(stored)

    return await idempotency.run(session, caller, body, act)


@router.get("/v1/levels", summary="The table of levels", tags=["levels"])
async def get_levels(caller: ReaderDep, session: ReadSessionDep, response: Response) -> schemas.TableVersion:
    """The newest version; its number is the ETag."""
    tables = (await definitions.read_tables(session, [caller.account.name]))[caller.account.name]
    response.headers["ETag"] = f'"{tables.newest}"'
    return _table(tables.versions[-1])


@router.get("/v1/levels/versions", summary="How the table of levels has changed", tags=["levels"])
async def list_level_versions(caller: ReaderDep, session: ReadSessionDep) -> schemas.TableVersions:
    """Every version, the newest first, with who stored it and when."""
    tables = (await definitions.read_tables(session, [caller.account.name]))[caller.account.name]
    return schemas.TableVersions(items=[_table(version) for version in reversed(tables.versions)])


@router.put("/v1/levels", summary="Change the table of levels", tags=["levels"], responses=CHANGED)
async def put_levels(
    caller: WriterDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    response: Response,
    body: schemas.TableBody,
    if_match: IfMatch = None,
) -> schemas.TableVersion:
    """Stores a new version. On the day on which it takes effect it lifts whoever has enough by it; nobody falls before
    the day on which his level is judged again."""
    now = datetime.now(UTC)

    async def act() -> schemas.TableVersion:
        try:
            stored = await usecases.put_table(
                session,
                caller.account.name,
                body.table,
                body.effective_from or local_day(now, caller.account.zone),
                _expected(if_match),
                now,
                caller.key_id,
            )
        except DefinitionError as error:
            raise invalid(error.detail, pointer=f"/table{error.pointer}") from None
        except usecases.VersionChangedError as error:
            raise _changed(error.version) from None
        response.headers["ETag"] = f'"{stored.version}"'
        return _table(stored)

    return await idempotency.run(session, caller, body, act)


@router.get("/v1/ledger/audit", summary="Check the ledger against itself", tags=["points"])
async def audit_ledger(caller: ReaderDep, session: ReadSessionDep) -> schemas.Audit:
    """Goes through all entries, lots and balances of the account, at one moment. Every number must be 0."""
    found = await audit.audit(session, caller.account.name) or {}
    return schemas.Audit(
        correct=not any(found.values()),
        checks=[
            schemas.Check(name=name, description=description, wrong=found[name])
            for name, (description, _) in audit.CHECKS.items()
        ],
    )


async def _versions(session: ReadSessionDep, account: str, key: str) -> list[domain.RuleVersion]:
    found = (await definitions.read_rules(session, [account]))[account].versions.get(key)
    if not found:
        raise not_found(f"There is no rule {key}.", "unknown_rule")
    return found


def _rule(version: domain.RuleVersion) -> schemas.RuleVersion:
    built_in = usecases.is_built_in(version)
    return schemas.RuleVersion(
        key=version.key,
        version=version.version,
        effective_from=version.effective_from,
        created_at=version.created_at,
        created_by=version.created_by,
        built_in=built_in,
        rule=version.rule,
    )


def _table(version: level_domain.TableVersion) -> schemas.TableVersion:
    return schemas.TableVersion(**asdict(version) | {"table": version.table}, built_in=version is level_domain.BUILT_IN)


def _expected(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    found = re.fullmatch(r'"(\d{1,9})"', if_match)
    if not found:
        raise invalid('must be the ETag of a version, such as "2", in quotes', parameter="header/If-Match")
    return int(found[1])


def _changed(newest: int) -> Problem:
    there = f'the newest version is "{newest}"' if newest else "there is no version yet"
    return Problem(412, "version_changed", f"Something else was stored meanwhile: {there}.")
