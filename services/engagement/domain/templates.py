"""Texts of messages: Liquid, strict about names, bounded in loops and length.

The library takes 16 MB and half a second to load, so it is imported by the first text that is more than plain words.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from libs.common.events.derived import SegmentEntered
from services.engagement.domain.decisions import Starter
from services.engagement.domain.journeys import Text

if TYPE_CHECKING:
    from liquid import BoundTemplate, Environment

MOST_CHARACTERS = 4000
"""Of a template, and of what it becomes."""
MOST_LOOP_TURNS = 1000

VARIABLES: Mapping[str, str] = {
    "account.name": "the business account",
    "user.id": "the user's id when it was decided",
    "user.subject": "the subject that the message is for",
    "user.platform": "the platform of what started the journey; may be empty",
    "event.type": "what started the journey: follow or segment.entered",
    "event.time": "when it happened, ISO 8601",
    "event.segment": "the segment that was entered; empty for a follow",
}
"""What a text may name."""

EXAMPLE: Mapping[str, Any] = {
    "account": {"name": "demo"},
    "user": {"id": "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz", "subject": "douyin:u42", "platform": "douyin"},
    "event": {"type": "follow", "time": "2026-06-01T08:00:00+08:00", "segment": ""},
}


class TemplateError(Exception):
    """A text that cannot be used; the message says why, for whoever wrote it."""


def variables_of(account: str, user_id: str, event: Starter) -> dict[str, dict[str, str]]:
    """The values of VARIABLES for one message."""
    return {
        "account": {"name": account},
        "user": {"id": user_id, "subject": event.subject, "platform": event.platform or ""},
        "event": {
            "type": event.type,
            "time": event.time.isoformat(),
            "segment": event.data.segment if isinstance(event, SegmentEntered) else "",
        },
    }


def render(text: Text, variables: Mapping[str, Any] | None) -> Text:
    """The text as the fan reads it. Raises TemplateError."""
    return Text(*(_render(part, variables or {}) for part in text))


def check(template: str) -> None:
    """Raises TemplateError when `template` could not be rendered for every message."""
    if len(template) > MOST_CHARACTERS:
        raise TemplateError(f"is longer than {MOST_CHARACTERS} characters")
    if not _is_template(template):
        return
    parsed = _parse(template)
    unknown = sorted({path for path in parsed.global_variable_paths() if path not in VARIABLES})
    if unknown:
        raise TemplateError(f"names {', '.join(unknown)}, which a message does not know; {', '.join(VARIABLES)} are")
    _render(template, EXAMPLE)


def _is_template(part: str) -> bool:
    return "{{" in part or "{%" in part


def _render(part: str, variables: Mapping[str, Any]) -> str:
    if not _is_template(part):
        return part
    template = _parse(part)
    try:
        rendered: str = template.render(**variables)
    except Exception as error:  # filters raise whatever Python does on odd values
        raise TemplateError(_reason(error)) from None
    return rendered


@lru_cache(maxsize=1000)
def _parse(template: str) -> "BoundTemplate":
    try:
        return _environment().from_string(template)
    except Exception as error:
        raise TemplateError(_reason(error)) from None


@cache
def _environment() -> "Environment":
    from liquid import Environment, StrictUndefined

    class Bounded(Environment):
        loop_iteration_limit = MOST_LOOP_TURNS
        output_stream_limit = MOST_CHARACTERS * 4  # bytes
        local_namespace_limit = 64 * 1024
        context_depth_limit = 10

    environment = Bounded(undefined=StrictUndefined)
    for tag in ("include", "render"):
        del environment.tags[tag]
    return environment


def _reason(error: Exception) -> str:
    return f"is not a template that can be rendered: {(str(error) or type(error).__name__).splitlines()[0][:200]}"
