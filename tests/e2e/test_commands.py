"""The commands that look into a running system: trigger, tail, user, demo."""

import asyncio
import io
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from rich.console import Console

from libs.cli.connection import Connection
from libs.cli.local.processes import free_ports
from libs.cli.trigger import HopMissingError, Tracer
from libs.cli.triggers import DOUYIN, OWN, aim
from libs.cli.user import read_user
from libs.common.events import EVENT_TYPES, parse_event
from tests.support.services import SERVICES, System

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    code: int | None
    out: str
    error: str


def run_json(system: System) -> dict[str, object]:
    """What `superfan up` would have left behind."""
    return {
        "services": {name: {"url": system.url(name)} for name in SERVICES},
        "kafka": system.broker.bootstrap,
        "postgres": system.databases,
        "api_key": system.keys["demo"],
        "config": str(system.folder / "superfan.toml"),
    }


@pytest.fixture(scope="module")
def data(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that tells of the running system."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "run.json").write_text(json.dumps(run_json(system)))
    return folder


@pytest.fixture
async def connection(system: System) -> AsyncIterator[Connection]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        yield Connection(run_json(system), http)


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "libs.cli.main", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Tests that run side by side are started with Ctrl-C ignored, and a process inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


async def superfan(data: Path, *arguments: str) -> Ended:
    """Runs a command to its end."""
    process = await start(*arguments, "--data", str(data))
    async with asyncio.timeout(120):
        out, error = await process.communicate()
    return Ended(process.returncode, out.decode(), error.decode())


async def trace(connection: Connection, name: str, user: str, *, repeat: bool = False, timeout: float = 60) -> str:
    """What a trigger prints."""
    printed = io.StringIO()
    shot = aim(connection, name, user, None, datetime.now(UTC))
    await Tracer(connection, Console(file=printed, width=1000), timeout).run(shot, repeat=repeat)
    return printed.getvalue()


def hops(printed: str) -> dict[str, str]:
    """Text by hop: of the second copy, or of the outcome, where a hop is told more than once."""
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ")]
    return {words[0]: words[1] for words in lines}


class TestTrigger:
    async def test_a_follow_is_told_hop_by_hop(self, system: System, data: Path) -> None:
        ended = await superfan(data, "trigger", "douyin.follow", "--user", "told")

        assert (ended.code, ended.error) == (0, "")
        before, _, after = ended.out.partition("what came of it\n")
        applied = [line.split()[0] for line in before.splitlines() if line.endswith("applied")]
        assert sorted(applied) == ["engagement", "profile", "rewards", "segmentation"]
        assert "superfan.follows partition" in hops(before)["kafka"]
        assert hops(after)["profile"].startswith("follow 1;")
        assert hops(after)["segmentation"].startswith("entered lifecycle.new (first placement)")
        assert hops(after)["engagement"] == "welcome sent, in_app: “欢迎关注！”"
        assert hops(after)["rewards"] == "+10 by rule follow v1; balance 10"
        assert (await system.get("rewards", "/v1/users/douyin:told/points", "demo"))["balance"] == 10

    async def test_the_same_bytes_again_change_nothing(self, system: System, data: Path) -> None:
        ended = await superfan(data, "trigger", "douyin.follow", "--user", "again", "--repeat")

        assert (ended.code, ended.error) == (0, "")
        first, _, second = ended.out.partition("the same bytes again\n")
        assert hops(first)["kafka"] != hops(second)["kafka"]
        assert all(hops(second)[service].startswith("unchanged: ") for service in SERVICES[1:])
        event_id = hops(second)["accepted"].rpartition(" ")[2]
        assert (await system.event_ids("rewards", "demo", "/douyin-demo"))[event_id] == 1

    async def test_a_second_follow_is_not_welcomed_and_says_why(self, connection: Connection) -> None:
        await trace(connection, "follow", "douyin:twice")
        printed = await trace(connection, "follow", "douyin:twice")
        assert hops(printed)["engagement"].startswith("welcome skipped: already_messaged (earlier_message_id msg_")

    @pytest.mark.parametrize("name", [*DOUYIN, *OWN])
    async def test_whatever_is_listed_arrives(self, connection: Connection, name: str) -> None:
        printed = await trace(connection, name, "douyin:any")
        assert "applied" in printed
        assert "knows nobody" not in printed

    async def test_services_that_do_not_read_the_topic_are_named(self, connection: Connection) -> None:
        printed = await trace(connection, "view", "douyin:viewer")
        assert hops(printed)["rewards"] == "does not read superfan.views"
        assert hops(printed)["profile"].startswith("view 1;")

    async def test_a_hop_that_is_missing_is_named(self, system: System, connection: Connection) -> None:
        rewards = system.children["rewards"].popen
        assert rewards
        rewards.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(HopMissingError, match=r"^missing after 2 s: rewards \("):
                await trace(connection, "douyin.follow", "waiting", timeout=2)
        finally:
            rewards.send_signal(signal.SIGCONT)

    async def test_a_wrong_secret_is_one_line(self, system: System, data: Path, tmp_path: Path) -> None:
        shutil.copy(system.folder / "superfan.toml", tmp_path)
        shutil.copy(system.folder / "standard", tmp_path)
        (tmp_path / "douyin").write_text("another")
        run = json.loads((data / "run.json").read_text()) | {"config": str(tmp_path / "superfan.toml")}
        (tmp_path / "run.json").write_text(json.dumps(run))

        ended = await superfan(tmp_path, "trigger", "douyin.follow")

        assert ended.code == 1
        assert ended.error.startswith("error: ingest answered 401: X-Douyin-Signature is not valid.")
        assert ended.error.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (("douyin.dance",), "no trigger 'douyin.dance'"),
            (("douyin.follow", "--source", "nowhere"), "no source nowhere of platform douyin in account demo"),
            (("douyin.follow", "--user", "wechat:u1"), "the fans of source douyin-demo are douyin:<open id>"),
            (("view", "--source", "douyin-demo"), "--source goes with webhooks"),
        ],
    )
    async def test_a_slip_is_one_line(self, data: Path, arguments: tuple[str, ...], reason: str) -> None:
        ended = await superfan(data, "trigger", *arguments)
        assert ended.code == 1
        assert ended.error.startswith(f"error: {reason}")
        assert ended.error.count("\n") == 1

    async def test_all_triggers_are_listed(self, data: Path) -> None:
        ended = await superfan(data, "trigger", "--list")
        assert ended.code == 0
        assert {"douyin.follow", "douyin.digg", "order.paid", "sign_in"} <= {
            line.split()[0] for line in ended.out.splitlines() if line
        }


@pytest.mark.parametrize("command", ["trigger douyin.follow", "tail", "user douyin:u1", "demo"])
async def test_without_a_running_system_each_command_says_so(tmp_path: Path, command: str) -> None:
    ended = await superfan(tmp_path, *command.split())
    assert ended.code == 1
    assert ended.error == f"error: nothing runs in {tmp_path}: start it with `make run` or `superfan up`\n"


class TestTail:
    @pytest.mark.parametrize("form", ["line", "json"])
    async def test_events_of_a_type_are_followed_until_ctrl_c(
        self, data: Path, connection: Connection, form: str
    ) -> None:
        options = ["--json"] if form == "json" else []
        process = await start("tail", "--topic", "follows", "--type", "follow", *options, "--data", str(data))
        assert process.stdout
        assert process.stderr
        async with asyncio.timeout(60):
            assert await process.stderr.readline() == b"following superfan.follows; Ctrl-C ends it\n"
            await trace(connection, "unfollow", f"douyin:tail-{form}")
            await trace(connection, "douyin.follow", f"tail-{form}")
            line = (await process.stdout.readline()).decode()
            process.send_signal(signal.SIGINT)
            out, error = await process.communicate()

        assert (process.returncode, out, error) == (0, b"", b"")
        if form == "json":
            assert parse_event(line).subject == "douyin:tail-json"
        else:
            _, place, name, subject, event_id, content = line.split()
            assert place.startswith("follows/")
            assert (name, subject, content) == ("follow", "douyin:tail-line", "{}")
            assert event_id.startswith("new_follow_action:")

    @pytest.mark.parametrize("option", ["--topic", "--type"])
    async def test_what_is_not_there_is_one_line(self, data: Path, option: str) -> None:
        ended = await superfan(data, "tail", option, "nonsense")
        assert ended.code == 1
        assert ended.error.startswith("error: no ")
        assert ended.error.count("\n") == 1


class TestUser:
    async def test_a_fan_is_shown_as_every_service_knows_them(self, data: Path, connection: Connection) -> None:
        await trace(connection, "douyin.follow", "shown")
        await trace(connection, "sign_in", "douyin:shown")

        ended = await superfan(data, "user", "douyin:shown")

        assert (ended.code, ended.error) == (0, "")
        told = hops(ended.out)
        assert told["events"] == "follow 1, sign_in 1"
        assert told["lifecycle"].startswith("new since ")
        assert told["messages"].endswith("“欢迎关注！”")
        assert told["decisions"].endswith("welcome v1 sent")
        assert told["points"] == "11 (follow 10, sign_in 1)"
        assert told["sign-ins"].startswith("1 day in a row")
        assert {"follow", "sign_in"} <= told.keys()

    async def test_an_unknown_fan_is_one_line(self, data: Path) -> None:
        ended = await superfan(data, "user", "douyin:nobody")
        assert ended.code == 1
        assert ended.error.startswith("error: no event has named the user douyin:nobody")
        assert ended.error.count("\n") == 1

    async def test_a_service_that_is_down_is_told_in_its_section(
        self, system: System, connection: Connection, data: Path, tmp_path: Path
    ) -> None:
        await trace(connection, "douyin.follow", "without-rewards")
        run = run_json(system)
        nowhere = {"url": f"http://127.0.0.1:{free_ports(1)[0]}"}
        run["services"] = {**connection.run["services"], "rewards": nowhere}

        sections = await read_user(Connection(run, connection.http), "douyin:without-rewards")

        assert str(sections["rewards"]) == f"rewards does not answer at {nowhere['url']}: see `superfan status`"
        assert not isinstance(sections["profile"], Exception)


async def test_the_demo_counts_once_however_often_it_runs(system: System, data: Path) -> None:
    first = await superfan(data, "demo", "--fans", "12", "--seed", "7", "--no-orders")
    second = await superfan(data, "demo", "--fans", "12", "--seed", "7", "--no-orders")

    assert (first.code, first.error) == (second.code, second.error) == (0, "")
    assert first.out.partition("What came of them")[2] == second.out.partition("What came of them")[2] != ""
    sent = int(first.out.split(" events sent")[-2].rpartition(" of ")[2].replace(",", ""))
    rows = await system.query(
        "profile",
        "select count(*) from event where subject like 'douyin:demo-%-7-%' and type = any($1)",
        [name for name, event in EVENT_TYPES.items() if event.direction == "input"],
    )
    assert rows == [(sent,)]
