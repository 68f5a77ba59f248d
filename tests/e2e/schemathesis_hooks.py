"""Loaded by the schemathesis command."""

from typing import Any

import schemathesis
from schemathesis import GenerationMode


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    """Only a cursor that a page gave is valid, and only the tag of the version that is there: made-up ones are left out
    where data must be valid."""
    if case.meta and case.meta.generation.mode == GenerationMode.POSITIVE:
        if case.query:
            case.query.pop("cursor", None)
        for name in ("If-Match", "If-None-Match"):
            if case.headers and name in case.headers:
                del case.headers[name]
        if isinstance(case.body, dict):
            _make_sensible(case.body)


def _make_sensible(body: dict[str, Any]) -> None:
    """What a schema cannot say: which topics a service reads; rewards' definitions and adjustments."""
    if body.get("topics"):
        body["topics"] = ["superfan.follows"]
    rule, table = body.get("rule"), body.get("table")
    if isinstance(rule, dict) and "steps" in rule:
        rule["steps"] = sorted(rule["steps"])
        if rule.get("cycle"):
            rule["cycle"] = max(rule["cycle"], len(rule["steps"]))
    if isinstance(rule, dict) and rule.get("event_type") not in ("order.paid", "live.gift"):
        rule.pop("min_amount", None)
    if isinstance(table, dict):
        for number, level in enumerate(table["levels"]):
            level |= {"key": f"level-{number}", "growth": number}
    if body.get("points") == 0:
        body["points"] = 1
