"""Building events for tests, valid and not."""

from typing import Any

import pytest
from pydantic import ValidationError

from libs.common.events import problems, validate_event

FOLLOW: dict[str, Any] = {
    "id": "1",
    "source": "test",
    "type": "follow",
    "subject": "douyin:u1",
    "account": "demo",
    "time": "2026-03-01T09:00:00+08:00",
    "receivedtime": "2026-03-01T01:00:01Z",
}


def event(type_name: str = "follow", data: object = None, **attributes: object) -> dict[str, Any]:
    """A valid follow with changes; an attribute given as None is left out."""
    changed = FOLLOW | {"type": type_name} | ({} if data is None else {"data": data}) | attributes
    return {name: value for name, value in changed.items() if value is not None}


def refused(value: object) -> list[str]:
    """The pointers under which a value is refused."""
    with pytest.raises(ValidationError) as caught:
        validate_event(value)
    return [problem.pointer for problem in problems(caught.value)]


def reason(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        validate_event(value)
    return problems(caught.value)[0].detail


def data_of(value: object) -> Any:
    """The validated data, of whatever type."""
    return validate_event(value).data
