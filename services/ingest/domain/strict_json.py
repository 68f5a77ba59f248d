"""JSON read strictly: what other readers quietly change or drop is found, and found per value, with its place.

`read` takes a fast way that is right for clean text and proves that nothing is wrong with it; only text in which
something may be wrong is read a second time by `json`, whose hooks mark what is refused.
"""

import json
import math
import re
from typing import Any, NamedTuple

import orjson

from libs.common.events import Problem

MAX_DEPTH = 32
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT = 2**53
"""Beyond it JavaScript and many other senders round integers without a word."""

_ONE_DIGIT_ONE_SPACE = bytes.maketrans(b"123456789\t\r\n", b"000000000   ")
_SUSPICIOUS = (b" :", b"0" * 20, b"-" + b"0" * 19)
"""Searched for in text with one kind of digit and of white space: keys that the count below would miss, and integers
that may exceed 64 bits, of which orjson makes floats."""

_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_KEEP_DEPTH = 100
_ID_NAME = re.compile(r"(?:^|_)id$|Id$", re.ASCII)


class MalformedJsonError(ValueError):
    """The text is no JSON. `position` counts characters from 0, `line` and `column` from 1."""

    def __init__(self, detail: str, position: int, line: int, column: int) -> None:
        super().__init__(f"line {line} column {column}: {detail}")
        self.position = position
        self.line = line
        self.column = column


class Marked(NamedTuple):
    """Stands in a document for a value that is refused, whatever its place."""

    value: Any
    detail: str
    name: str | None = None
    """The field name that stands twice, where that is what is wrong."""


class Document(NamedTuple):
    """What was read. If not `clean`, `find_flaws` must be asked before a part of it is used."""

    value: Any
    clean: bool


def read(raw: bytes) -> Document:
    """The JSON in `raw`, which may begin with a byte order mark. Raises MalformedJsonError."""
    value = _read_clean(raw)
    return Document(_read_marking(raw), clean=False) if value is None else Document(value, clean=True)


def _read_clean(raw: bytes) -> Any:
    """The document, if this reader can vouch for it, else None (so, too, for the document `null`).

    orjson refuses invalid UTF-8, unpaired surrogates, NaN and infinities by itself.
    """
    # \u00XX may spell NUL, quotes and colons.
    plain = raw.translate(_ONE_DIGIT_ONE_SPACE)
    if b"\\u00" in raw or any(suspicious in plain for suspicious in _SUSPICIOUS):
        return None
    try:
        value = orjson.loads(raw)
        again = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)  # fails beyond 2**53
    except (ValueError, TypeError):
        return None
    # A key ends in `":` here and there alike, and so may quotes in texts: fewer of them means that a name stood twice.
    if raw.count(b'":') != again.count(b'":'):
        return None
    if again.count(b"{") + again.count(b"[") > MAX_DEPTH and not _is_within(value, MAX_DEPTH):
        return None
    return value


def _is_within(value: Any, levels: int) -> bool:
    if levels == 0:
        return False
    for child in value.values() if type(value) is dict else value:
        if (type(child) is dict or type(child) is list) and not _is_within(child, levels - 1):
            return False
    return True


def _read_marking(raw: bytes) -> Any:
    # Invalid bytes become unpaired surrogates, which are found in their place later.
    text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    try:
        try:
            return _loads(text)
        except RecursionError:
            return _loads(_blank_depths(text))
    except json.JSONDecodeError as error:
        raise MalformedJsonError(error.msg, error.pos, error.lineno, error.colno) from None


def _loads(text: str) -> Any:
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=lambda name: Marked(None, f"{name} is not a JSON number"),
        parse_int=_integer,
        parse_float=_number,
    )


def _object(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return Marked(value, "the field stands twice", name)
        seen.add(name)
    raise AssertionError


def _integer(digits: str) -> Any:
    # Looked at as text first: int() refuses thousands of digits.
    if len(digits) > 20 or not INT64_MIN <= int(digits) <= INT64_MAX:
        return Marked(None, "an integer of more than 64 bits; send ids as strings")
    return int(digits)


def _number(digits: str) -> Any:
    number = float(digits)
    return number if math.isfinite(number) else Marked(None, "a number out of range")


def _blank_depths(text: str) -> str:
    """Text of the same length in which very deep nesting is empty: still far too deep, but readable."""
    parts, kept, blank_from, depth = [], 0, 0, 0
    for match in _STRUCTURE.finditer(text):
        if match[0] in {"[", "{"}:
            depth += 1
            if depth == _KEEP_DEPTH:
                blank_from = match.end()
        elif match[0] in {"]", "}"}:
            if depth == _KEEP_DEPTH:
                parts += [text[kept:blank_from], " " * (match.start() - blank_from)]
                kept = match.start()
            depth -= 1
    if depth >= _KEEP_DEPTH:
        raise json.JSONDecodeError("Nesting is not closed", text, len(text))
    return "".join([*parts, text[kept:]])


def find_flaws(value: Any, *, exact_ids: bool = False) -> list[Problem]:
    """Everything in `value` that JSON readers disagree about or that cannot be stored, with pointers into it.

    `exact_ids`: the sender is known not to round long ids that it writes as numbers.
    """
    flaws: list[Problem] = []
    _collect(value, [], flaws, exact_ids)
    return flaws


def _collect(value: Any, path: list[str], flaws: list[Problem], exact_ids: bool) -> None:
    if isinstance(value, Marked):
        at = path if value.name is None else [*path, value.name]
        flaws.append(Problem(pointer(at), value.detail))
        value = value.value
    if isinstance(value, dict | list):
        if len(path) >= MAX_DEPTH:
            flaws.append(Problem(pointer(path), f"nested more than {MAX_DEPTH} levels deep"))
            return
        for name, child in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(name, str) and (fault := _text_fault(name)):
                flaws.append(Problem(pointer(path), f"a field name {fault}"))
            _collect(child, [*path, str(name)], flaws, exact_ids)
    elif isinstance(value, str):
        if fault := _text_fault(value):
            flaws.append(Problem(pointer(path), f"the text {fault}"))
    elif isinstance(value, int) and abs(value) > EXACT and not exact_ids and path and _ID_NAME.search(path[-1]):
        flaws.append(Problem(pointer(path), "send ids as strings: this number may have been rounded on its way"))


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds an unpaired surrogate or bytes that are not UTF-8"
    return None


def pointer(path: list[str]) -> str:
    """JSON pointer (RFC 6901) that can always be written, however strange the names are."""
    tokens = (token[:100].encode("utf-8", "replace").decode().replace("\0", "?") for token in path)
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)
