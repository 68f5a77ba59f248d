"""The contact policy of an account as it is stored: versions of JSON, and the built-in one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from services.engagement.domain.gates import DEFAULT_POLICY, Cap, Policy, QuietHours


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A version of an account's policy. Version 1 is built in, and stands until the account stores its own."""

    version: int
    policy: Policy
    changed_at: datetime | None = None
    changed_by: str | None = None


BUILT_IN_POLICY = PolicyVersion(1, DEFAULT_POLICY)


def policy_of(stored: Mapping[str, Any]) -> Policy:
    """The policy that `stored` describes."""
    quiet = stored["quiet_hours"]
    return Policy(
        quiet=QuietHours(
            start=time.fromisoformat(quiet["start"]),
            end=time.fromisoformat(quiet["end"]),
            spread=timedelta(seconds=quiet["spread_seconds"]),
        ),
        gap=timedelta(seconds=stored["minimum_gap_seconds"]),
        caps=tuple(
            Cap(timedelta(seconds=cap["window_seconds"]), cap["most"], cap["purpose"], cap["channel"])
            for cap in stored["caps"]
        ),
    )


def stored_form(policy: Policy) -> dict[str, Any]:
    """What is stored and told of a policy."""
    return {
        "quiet_hours": {
            "start": policy.quiet.start.strftime("%H:%M"),
            "end": policy.quiet.end.strftime("%H:%M"),
            "spread_seconds": policy.quiet.spread // timedelta(seconds=1),
        },
        "minimum_gap_seconds": policy.gap // timedelta(seconds=1),
        "caps": [
            {
                "window_seconds": cap.window // timedelta(seconds=1),
                "most": cap.most,
                "purpose": cap.purpose,
                "channel": cap.channel,
            }
            for cap in policy.caps
        ],
    }
