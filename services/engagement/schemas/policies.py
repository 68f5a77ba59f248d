"""The contact policy of an account."""

from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Whole
from services.engagement.domain.gates import DEFAULT_POLICY, Cap, Policy, QuietHours
from services.engagement.domain.policies import stored_form

EXAMPLE: dict[str, Any] = stored_form(DEFAULT_POLICY)
VERSION_EXAMPLE: dict[str, Any] = {
    "version": 2,
    **EXAMPLE,
    "changed_at": "2026-06-01T08:00:00Z",
    "changed_by": "dev",
}
MONTH = 30 * 86400
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]


class QuietHoursBody(BaseModel):
    """When push, sms, dm and phone are silent, in the user's own time zone if profile knows it,
    else in the account's."""

    model_config = ConfigDict(extra="forbid")

    start: Clock
    end: Clock = Field(description="The first minute that is not quiet; the same as `start`: never quiet.")
    spread_seconds: Annotated[int, Whole(0, 4 * 3600)] = Field(
        description="What waited goes out within so long after the end."
    )


class CapBody(BaseModel):
    """At most `most` messages in any `window_seconds` that end now."""

    model_config = ConfigDict(extra="forbid")

    window_seconds: Annotated[int, Whole(60, MONTH)]
    most: Annotated[int, Whole(1, 1000)]
    purpose: Literal["service", "marketing"] | None = Field(default=None, description="Only these; null: all.")
    channel: Literal["in_app", "sms", "email", "push", "dm", "phone", "webhook"] | None = Field(
        default=None, description="Only by this kind of channel; null: by all together."
    )


class PolicyBody(BaseModel):
    """How much contact one person gets. Transactional messages are exempt from gap and caps and do not count."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE})

    quiet_hours: QuietHoursBody
    minimum_gap_seconds: Annotated[int, Whole(0, 7 * 86400)] = Field(description="Between any two messages.")
    caps: list[CapBody] = Field(max_length=10, description="All of them hold.")

    def policy(self) -> Policy:
        """The policy that this body describes."""
        return Policy(
            quiet=QuietHours(
                start=time.fromisoformat(self.quiet_hours.start),
                end=time.fromisoformat(self.quiet_hours.end),
                spread=timedelta(seconds=self.quiet_hours.spread_seconds),
            ),
            gap=timedelta(seconds=self.minimum_gap_seconds),
            caps=tuple(
                Cap(timedelta(seconds=cap.window_seconds), cap.most, cap.purpose, cap.channel) for cap in self.caps
            ),
        )


class PolicyVersion(PolicyBody):
    """The policy in effect, and who stored it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": VERSION_EXAMPLE})

    version: int
    changed_at: datetime | None = Field(description="Null for the built-in version.")
    changed_by: str | None = Field(description="Id of the key that stored it.")
