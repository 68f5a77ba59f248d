"""What logs hold and hide, and the trace context."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from libs.common.telemetry import bind_trace, current_traceparent, new_traceparent, redact, valid_traceparent
from tests.support.web import KEY, make_app

ROOT = Path(__file__).parents[2]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def logs(program: str, fmt: str = "json", level: str = "info") -> str:
    """What a process that runs `program` after `configure_logging` writes to stderr; stdout must stay empty."""
    start = f"from libs.common.telemetry import *\nconfigure_logging('profile', {fmt!r}, {level!r})\n"
    start += "log = get_logger('here')\n"
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == ""
    return done.stderr


def entries(program: str, **options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logs(program, **options).splitlines()]


def test_an_entry_holds_message_level_service_time_and_fields() -> None:
    (entry,) = entries("log.info('follow applied', count=3, subject='小红')")
    time = entry.pop("time")
    assert time.endswith("Z")
    assert entry == {
        "message": "follow applied",
        "level": "info",
        "service": "profile",
        "module": "here",
        "count": 3,
        "subject": "小红",
    }


def test_entries_below_the_level_are_left_out() -> None:
    program = "log.debug('a'); log.info('b'); log.warning('c')\nimport logging\nlogging.getLogger('x').info('d')"
    assert [entry["message"] for entry in entries(program, level="warning")] == ["c"]


def test_the_trace_and_bound_values_are_added_within_their_block() -> None:
    program = f"""
from structlog.contextvars import bound_contextvars
with bind_trace({TRACE!r}), bound_contextvars(request_id="r1"):
    log.info("in")
log.info("out")
"""
    inside, outside = entries(program)
    assert inside["trace_id"] == TRACE[3:35]
    assert inside["request_id"] == "r1"
    assert not {"trace_id", "request_id"} & outside.keys()


def test_the_entry_of_a_request_is_what_the_usual_way_would_write() -> None:
    program = f"""
fields = {{"method": "GET", "path": "/v1/sf_dev_geheim", "route": "unmatched", "status": 404, "milliseconds": 1.25}}
with RequestContext("r1", {TRACE!r}):
    log_request("r1", fields)
    get_logger("libs.common.web").info("request", **fields)
log.info("outside")
"""
    quick, usual, outside = entries(program)
    assert quick.pop("time").endswith("Z")
    assert usual.pop("time")
    assert quick == usual
    assert quick["path"] == "/v1/sf_dev_[hidden]"
    assert not {"trace_id", "request_id"} & outside.keys()
    assert [entry["message"] for entry in entries(program, level="warning")] == []
    assert "request_id=r1" in logs(program, fmt="console").splitlines()[0]


def test_logs_of_libraries_have_the_same_shape() -> None:
    program = f"""
import logging, warnings
with bind_trace({TRACE!r}):
    logging.getLogger("aiokafka.conn").error("lost %s", "broker", extra={{"node": 3}})
    logging.getLogger("uvicorn.error").info("chatter")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("other").exception("oops")
"""
    first, second = entries(program)
    assert first["message"] == "lost broker"
    assert (first["level"], first["service"], first["node"]) == ("error", "profile", 3)
    assert first["trace_id"] == TRACE[3:35]
    assert "ZeroDivisionError" in second["exception"]


def test_secrets_are_hidden_wherever_they_stand() -> None:
    program = f"""
import logging
log.info("headers", authorization="Bearer {KEY}", password="hunter2", api_key=b"x", Cookie="c=hunter2")
log.info("called with {KEY}", url="postgresql://u:hunter2@db:5432/x")
logging.getLogger("lib").error("Authorization: Bearer {KEY}")
try:
    raise RuntimeError("postgresql://u:hunter2@db/x {KEY}")
except RuntimeError:
    log.exception("failed")
"""
    for fmt in ("json", "console"):
        text = logs(program, fmt=fmt)
        assert "hunter2" not in text
        assert KEY not in text
    last = entries(program)[-1]
    assert "postgresql://u:[hidden]@db/x sf_test_[hidden]" in last["exception"]
    assert entries(program)[0]["authorization"] == "[hidden]"


def test_the_console_shows_the_message_and_short_traces() -> None:
    text = logs("token = 'hunter2'\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')", "console")
    assert "failed" in text
    assert "ZeroDivisionError" in text
    assert "hunter2" not in text


def test_values_that_are_not_json_do_not_break_an_entry() -> None:
    (entry,) = entries("log.info('x', path=__import__('pathlib').Path('/a'), when={1: {2}}, text='\\ud800', n=2**80)")
    assert entry["path"] == "/a"
    assert entry["message"] == "x"


def test_redact_keeps_other_text() -> None:
    assert redact("see http://host:80/a@b and sf_ and x@y") == "see http://host:80/a@b and sf_ and x@y"
    assert redact('{"key": "sf_dev_abc", "n": 1}') == '{"key": "sf_dev_[hidden]", "n": 1}'


def test_traceparents() -> None:
    assert valid_traceparent(new_traceparent()) is not None
    assert new_traceparent() != new_traceparent()
    assert valid_traceparent(TRACE) == TRACE
    assert valid_traceparent("42" + TRACE[2:] + "-future") == TRACE
    no_parent = TRACE.replace("b7ad6b7169203331", "0" * 16)
    for bad in (None, "", TRACE + "-x", "ff" + TRACE[2:], TRACE.upper(), TRACE[:-1], no_parent):
        assert valid_traceparent(bad) is None
    with bind_trace(TRACE) as bound:
        assert bound == current_traceparent() == TRACE
        with bind_trace("rubbish") as inner:
            assert inner == current_traceparent() != TRACE
        assert current_traceparent() == TRACE
    assert current_traceparent() is None


def test_each_request_gives_one_access_line_without_the_key(tmp_path: Path) -> None:
    make_app(tmp_path, APIRouter())  # writes superfan.toml
    program = f"""
import asyncio, httpx
from typing import Annotated
from fastapi import APIRouter, Depends
from libs.common.auth import Caller, require
from libs.common.config import ConfigFile
from libs.common.web import create_app
router = APIRouter()
@router.get("/things/{{name}}")
async def thing(name: str, caller: Annotated[Caller, Depends(require("rewards:read"))]) -> str:
    if name == "bug":
        raise RuntimeError("boom")
    return name
app = create_app(service="profile", title="t", version="1", description="d", routers=[router],
                 config=ConfigFile({str(tmp_path / "superfan.toml")!r}, "profile"))
async def main():
    headers = {{"Authorization": "Bearer {KEY}", "X-Request-Id": "r1", "traceparent": {TRACE!r}}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t", headers=headers) as api:
        await api.get("/things/a?phone=123")
        await api.get("/things/bug")
asyncio.run(main())
"""
    text = logs(program)
    assert KEY not in text
    assert "phone" not in text
    first, crash, second = (json.loads(line) for line in text.splitlines())
    assert first["milliseconds"] > 0
    for name in ("milliseconds", "time", "module", "level"):
        del first[name]
    assert first == {
        "message": "request",
        "service": "profile",
        "method": "GET",
        "path": "/things/a",
        "route": "/things/{name}",
        "status": 200,
        "account": "demo",
        "key_id": "test",
        "request_id": "r1",
        "trace_id": TRACE[3:35],
    }
    assert (crash["level"], crash["request_id"], second["status"]) == ("error", "r1", 500)
    assert "RuntimeError: boom" in crash["exception"]


def test_configuring_twice_does_not_double_lines() -> None:
    program = "configure_logging('profile')\nimport logging\nlogging.getLogger('a').error('x')\nlog.info('y')"
    assert [entry["message"] for entry in entries(program)] == ["x", "y"]
