"""The ledger's audit of itself: every so often, by one worker at a time."""

import asyncio
import time
from collections.abc import Mapping

import structlog
from prometheus_client import Gauge, Histogram

from libs.common.db import Sessions, is_transient
from services.rewards.store.audit import CHECKS, audit
from services.rewards.usecases import SERVICE

log = structlog.get_logger(__name__)

FIRST_AFTER_SECONDS = 20.0
EVERY_SECONDS = 600.0

WRONG = {
    name: Gauge(f"superfan_ledger_{name}", f"Must be 0: {description}", ["service"])
    for name, (description, _) in CHECKS.items()
}
AUDITED = Gauge("superfan_ledger_audited_timestamp_seconds", "When this process last audited the ledger", ["service"])
AUDIT_SECONDS = Histogram("superfan_ledger_audit_seconds", "One audit of all accounts", ["service"])


async def audit_now(sessions: Sessions) -> Mapping[str, int] | None:
    """Check all accounts and set the gauges; None when another worker is at it."""
    started = time.monotonic()
    async with sessions() as session, session.begin():
        found = await audit(session, None, alone=True)
    if found is None:
        return None
    for name, wrong in found.items():
        WRONG[name].labels(SERVICE).set(wrong)
    if any(found.values()):
        log.error("the ledger does not add up", **found)
    AUDITED.labels(SERVICE).set_to_current_time()
    AUDIT_SECONDS.labels(SERVICE).observe(time.monotonic() - started)
    return found


async def keep_auditing(sessions: Sessions) -> None:
    """Until cancelled. A failure is logged and tried again next time."""
    await asyncio.sleep(FIRST_AFTER_SECONDS)
    while True:
        try:
            await audit_now(sessions)
        except Exception as error:
            if not is_transient(error):
                log.exception("the audit failed unexpectedly")
            log.warning("the ledger could not be audited", error=repr(error)[:300])
        await asyncio.sleep(EVERY_SECONDS)
