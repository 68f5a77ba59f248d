"""Loaded by the schemathesis command."""

from typing import Any

import schemathesis
from schemathesis import GenerationMode


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    """Only a cursor that a page gave is valid: a made-up one is left out where data must be valid."""
    if case.query and case.meta and case.meta.generation.mode == GenerationMode.POSITIVE:
        case.query.pop("cursor", None)
