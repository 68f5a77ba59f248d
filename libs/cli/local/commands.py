"""What the commands of the launcher do."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from libs.cli.local.migrations import migrate_databases
from libs.cli.local.postgres import cluster_folder, remove_cluster
from libs.cli.local.processes import LaunchError, Mark, stop_marked, unprivileged_user
from libs.cli.local.progress import Progress
from libs.cli.local.state import ROOT, SERVICES, WITH_DATABASE, Folder, data_folder
from libs.cli.local.up import STEPS, PortChoice, System, run_system

STOP_SECONDS = 150


def up(data: Path | None, config: Path | None, ports: PortChoice, *, detach: bool) -> None:
    """Runs the system in this process, or with `detach` in one that stays."""
    folder = Folder(data_folder(data))
    if detach:
        _detached(folder, config, ports)
        return
    console = Console(soft_wrap=True)
    with Progress(console, STEPS) as progress:
        system = System(folder, config, ports, progress)

        def when_ready(run: dict[str, Any]) -> None:
            progress.close()
            console.print(_summary(run), highlight=False, markup=False)

        asyncio.run(run_system(system, when_ready))
    console.print("stopped", highlight=False)


def _summary(run: dict[str, Any]) -> str:
    lines = [f"  {name:<13} {service['url']}" for name, service in run["services"].items()]
    lines += [f"  kafka         {run['kafka']}", f"  configuration {run['config']}"]
    lines += [f"  API key       {run['api_key'] or 'of your own: no file keys/<id> beside the configuration'}", ""]
    lines += ["Next, in another terminal:"]
    lines += ["  .venv/bin/superfan trigger douyin.follow --user u42", "  .venv/bin/superfan user douyin:u42"]
    lines += ["  .venv/bin/superfan tail", "Ctrl-C or `superfan down` stops everything."]
    return "\n" + "\n".join(lines)


def _detached(folder: Folder, config: Path | None, ports: PortChoice) -> None:
    command = [sys.executable, "-m", "libs.cli.main", "up", "--data", str(folder.root), "--ports", ports]
    command += ["--config", str(config.absolute())] if config else []
    folder.logs.mkdir(parents=True, exist_ok=True)
    log = folder.log("launcher")
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        with log.open() as lines:
            while True:
                ended = child.poll() is not None
                state = folder.read_state()
                ready = state.phase == "ready" and state.launcher is not None and state.launcher.pid == child.pid
                sys.stdout.write(lines.read())
                sys.stdout.flush()
                if ended:
                    raise typer.Exit(child.returncode or 1)
                if ready:
                    time.sleep(0.1)
                    sys.stdout.write(lines.read())
                    return
                time.sleep(0.1)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise typer.Exit(130) from None


def down(data: Path | None, *, wipe: bool) -> None:
    """Stops the launcher, which stops its children; children whose launcher was killed are stopped directly."""
    folder = Folder(data_folder(data))
    state = folder.read_state()
    launcher = state.launcher.find() if state.launcher else None
    if launcher is not None:
        launcher.send_signal(signal.SIGTERM)
        assert state.launcher is not None
        end = time.monotonic() + STOP_SECONDS
        while state.launcher.find():
            if time.monotonic() > end:
                raise LaunchError(f"process {launcher.pid} did not stop in {STOP_SECONDS} s")
            time.sleep(0.1)
        typer.echo("stopped")
    elif count := asyncio.run(stop_marked(list(state.processes.values()))):
        typer.echo(f"stopped {count} processes whose launcher had been killed")
    else:
        typer.echo(f"nothing runs in {folder.root}")
    folder.forget()
    if wipe and folder.root.exists():
        asyncio.run(_wipe(folder))
        typer.echo(f"deleted {folder.root}")


async def _wipe(folder: Folder) -> None:
    if not (folder.root / "lock").exists():
        raise LaunchError(f"{folder.root} does not look like a data folder: nothing was deleted")
    if unprivileged_user() is not None:
        await remove_cluster(await cluster_folder(folder.root))
    shutil.rmtree(folder.root)


def status(data: Path | None) -> None:
    """Prints a table of all processes."""
    folder = Folder(data_folder(data))
    state = folder.read_state()
    run = folder.read_run() if folder.run_json.exists() else {"services": {}}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("process", "pid", "state", "url", "ready"):
        table.add_column(column)
    good = state.phase == "ready"
    notices: list[str] = []
    marks: dict[str, Mark | None] = {"launcher": state.launcher, "postgres": None, "kafka": None}
    marks |= dict.fromkeys(SERVICES) | dict(state.processes)
    for name, mark in marks.items():
        external = {"postgres": "SUPERFAN_PG_URL", "kafka": run.get("kafka", "")}.get(name)
        if mark is None and external is not None and state.phase == "ready":
            table.add_row(name, "", "external", external, "")
            continue
        alive = mark is not None and mark.find() is not None
        service = run["services"].get(name)
        ready, told = _ready(service["metrics"]) if alive and service else ("", [])
        notices += [f"{name}: {notice}" for notice in told]
        good = good and alive and ready in ("", "yes")
        url = service["url"] if service else run.get("kafka", "") if name == "kafka" else ""
        table.add_row(name, str(mark.pid) if mark else "", "running" if alive else "stopped", url, ready)
    console = Console(soft_wrap=True)
    console.print(table)
    for notice in notices:
        console.print(notice, style="red", highlight=False, markup=False)
    if not good:
        raise typer.Exit(1)


def _ready(metrics_url: str) -> tuple[str, list[str]]:
    """`yes` or why not, and what a process that is ready tells besides."""
    import httpx

    try:
        answer = httpx.get(f"{metrics_url}/readyz", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return "no answer", []
    if answer.status_code != 200:
        return answer.text[:200], []
    told = answer.json().get("notices", {})
    return "yes", [f"paused: {text}" if name == "paused" else text for name, text in told.items() if text != "ok"]


def lag(data: Path | None, *, wait: bool, seconds: float) -> None:
    """Prints a line per service and topic; or waits until nothing is behind."""
    from libs.cli.local.lag import LagReader

    reader = LagReader(Folder(data_folder(data)).read_run())
    if wait:
        asyncio.run(reader.wait(seconds))
        return

    async def read() -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("service", "topic", "behind"):
            table.add_column(column, justify="right" if column == "behind" else "left")
        try:
            begins, ends = await reader.log()
        except Exception as error:
            raise LaunchError(f"Kafka does not answer: {error!r}; `superfan doctor` says more") from None
        spooled = await reader.spooled()
        table.add_row("ingest", "(spool)", "no answer" if spooled is None else str(spooled))
        for item in await reader.read(ends, begins):
            for topic, behind in item.behind.items():
                table.add_row(item.service, topic, str(behind))
            table.add_row(item.service, "(outbox)", str(item.outbox))
        Console(soft_wrap=True).print(table)

    asyncio.run(read())


def migrate(data: Path | None) -> None:
    """Brings the databases of a running system up to date."""
    folder = Folder(data_folder(data))
    migrate_databases(folder.read_run()["postgres"], folder.log("migrate"))
    typer.echo(f"up to date: {', '.join(WITH_DATABASE)}")


def topics_apply(data: Path | None, kafka: str | None) -> None:
    """Creates the declared topics that are missing."""
    from libs.common.kafka import apply_topics
    from libs.common.settings import KafkaSettings, load_settings

    bootstrap = kafka or os.environ.get("SUPERFAN_KAFKA") or str(Folder(data_folder(data)).read_run()["kafka"])
    security = load_settings(KafkaSettings).security
    try:
        created = asyncio.run(apply_topics(bootstrap, security=security))
    except Exception as error:
        raise LaunchError(f"topics could not be made on Kafka at {bootstrap}: {error!r}") from None
    typer.echo("\n".join(created) if created else "all topics are there")


def key_new(account: str, key_id: str, scopes: str, trust: str) -> None:
    """Prints a new key and the block that declares it."""
    from libs.common.config import SCOPES, hash_key, make_key

    wanted = list(SCOPES) if scopes == "all" else [scope.strip() for scope in scopes.split(",")]
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise LaunchError(f"unknown scope {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if trust not in ("server", "client"):
        raise LaunchError("--trust is server or client")
    try:
        text = make_key(key_id, secrets.token_urlsafe(24))
    except ValueError as error:
        raise LaunchError(str(error)) from None
    listed = ", ".join(f'"{scope}"' for scope in wanted)
    typer.echo(f"The key, shown this once:\n\n  {text}\n\nFor superfan.toml:\n")
    typer.echo(f'[[keys]]\nid = "{key_id}"\naccount = "{account}"\nsha256 = "{hash_key(text)}"')
    typer.echo(f'scopes = [{listed}]\ntrust = "{trust}"')
