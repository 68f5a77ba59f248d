"""Changing rules and tables of levels: every change is a version with who made it and when."""

from dataclasses import replace
from datetime import date, datetime

from libs.common.db import AsyncSession
from libs.common.identity import lock_groups
from services.rewards.domain.levels import LevelTable, TableVersion
from services.rewards.domain.rules import BUILT_IN, AmountRule, FixedRule, RuleVersion, StreakRule
from services.rewards.store import definitions


class VersionChangedError(Exception):
    """Another version than the expected one is there; `version` is the newest."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the newest version is {version}")
        self.version = version


async def put_rule(
    session: AsyncSession,
    account: str,
    key: str,
    rule: FixedRule | AmountRule | StreakRule,
    effective_from: datetime | None,
    expected: int | None,
    now: datetime,
    made_by: str,
) -> RuleVersion:
    """Store a new version of a rule, in force from `effective_from` (now if None). The same definition again changes
    nothing. Raises DefinitionError, and VersionChangedError when `expected` is not the newest version (0: none yet)."""
    rule.check()
    await lock_groups(session, [account])
    versions = (await definitions.read_rules(session, [account]))[account].versions.get(key, [])
    newest = versions[-1].version if versions else 0
    if expected is not None and expected != newest:
        raise VersionChangedError(newest)
    if versions and versions[-1].rule == rule and effective_from in (None, versions[-1].effective_from):
        return versions[-1]
    version = RuleVersion(key, newest + 1, rule, effective_from or now, now, made_by)
    if not await definitions.add_rule(session, account, version):
        raise VersionChangedError(newest + 1)
    return version


def is_built_in(version: RuleVersion) -> bool:
    """Whether no account has stored it."""
    return BUILT_IN.get(version.key) is version


async def put_table(
    session: AsyncSession,
    account: str,
    table: LevelTable,
    effective_from: date,
    expected: int | None,
    now: datetime,
    made_by: str,
) -> TableVersion:
    """Store a new version of the table of levels, in force from the local day `effective_from`. The same table again
    changes nothing. Raises DefinitionError and VersionChangedError."""
    table.check()
    await lock_groups(session, [account], exclusive=True)
    newest = (await definitions.read_tables(session, [account]))[account].versions[-1]
    if expected is not None and expected != newest.version:
        raise VersionChangedError(newest.version)
    if newest.table == table:
        return newest
    made = replace(
        newest,
        version=newest.version + 1,
        table=table,
        effective_from=effective_from,
        created_at=now,
        created_by=made_by,
    )
    await definitions.add_table(session, account, made)
    return made
