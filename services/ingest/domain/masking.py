"""What a refused event may still show: its shape. Field names stay, every value becomes the name of its type."""

from typing import Any

from services.ingest.domain.strict_json import MAX_DEPTH, Marked

MAX_NODES = 300
MAX_NAME = 64
_CUT = "…"


def mask(value: Any) -> Any:
    """The shape of parsed JSON: at most 300 values, names of at most 64 characters, 32 levels."""
    return _mask(value, [MAX_NODES], MAX_DEPTH)


def _mask(value: Any, left: list[int], levels: int) -> Any:
    left[0] -= 1
    if isinstance(value, Marked):
        return _mask(value.value, left, levels) if value.value is not None else "<refused>"
    if isinstance(value, dict | list) and levels == 0:
        return _CUT
    if isinstance(value, dict):
        shape = {}
        for name, child in value.items():
            if left[0] <= 0:
                shape[_CUT] = _CUT
                break
            shape[_name(name)] = _mask(child, left, levels - 1)
        return shape
    if isinstance(value, list):
        items = []
        for child in value:
            if left[0] <= 0:
                items.append(_CUT)
                break
            items.append(_mask(child, left, levels - 1))
        return items
    return _type_name(value)


def _type_name(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "<boolean>"
    if isinstance(value, str):
        return "<string>"
    return "<integer>" if isinstance(value, int) else "<number>"


def _name(name: str) -> str:
    return name[:MAX_NAME].encode("utf-8", "replace").decode().replace("\0", "?")
