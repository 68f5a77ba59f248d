"""The `superfan` command. Every command imports what it needs when it runs, so that `--help` is quick."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from libs.cli import consumer_commands, dead_letter_commands
from libs.cli.options import Data, one_line_errors

app = typer.Typer(
    name="superfan",
    help="Runs the whole system on this machine and looks into a running one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="Kafka's topics.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
export_app = typer.Typer(help="Take data out.", no_args_is_help=True)
spool_app = typer.Typer(help="What waits on ingest's disk for Kafka.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(key_app, name="key")
app.add_typer(dead_letter_commands.app, name="dead-letters")
app.add_typer(consumer_commands.app, name="consumer")
app.add_typer(export_app, name="export")
app.add_typer(spool_app, name="spool")


class PortChoice(StrEnum):
    """How `up` chooses the services' ports."""

    fixed = "fixed"
    auto = "auto"


@app.command()
def up(
    data: Data = None,
    config: Annotated[Path | None, typer.Option(help="A superfan.toml of your own.")] = None,
    ports: Annotated[PortChoice, typer.Option(help="fixed: 8001 to 8005; auto: whatever is free.")] = PortChoice.fixed,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
) -> None:
    """Start PostgreSQL, Kafka and the five services; Ctrl-C stops them."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.up(data, config, ports.value, detach=detach)


@app.command()
def down(
    data: Data = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete the data folder.")] = False,
) -> None:
    """Stop what runs."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.down(data, wipe=wipe)


@app.command()
def status(data: Data = None) -> None:
    """Show every process, its address and whether it is ready; exit code 1 unless all are."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.status(data)


@app.command()
def lag(
    data: Data = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when every service has applied everything.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that --wait may take.")] = 60,
) -> None:
    """Show how many records each service is behind Kafka and what its outbox still holds."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.lag(data, wait=wait, seconds=timeout)


@app.command()
def doctor(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check Kafka, topics, databases, services and what waits, and say what to do; exit code 1 when something is wrong.

    With nothing running it checks this machine instead.
    """
    from libs.cli import doctor as command

    with one_line_errors():
        command.doctor(data, as_json=as_json)


@app.command()
def trigger(
    name: Annotated[str | None, typer.Argument(help="What to send, such as douyin.follow; see --list.")] = None,
    user: Annotated[str, typer.Option(help="The fan: an id, or a whole subject such as douyin:u42.")] = "u42",
    data: Data = None,
    source: Annotated[str | None, typer.Option(help="Webhook source; if absent the account's first.")] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Send the same bytes again: nothing counts twice.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show what can be sent.")] = False,
) -> None:
    """Send one event, a signed webhook for instance, and show each hop; exit code 1 when one is missing."""
    import asyncio

    from libs.cli import trigger as command

    with one_line_errors():
        if list_all or name is None:
            command.print_list()
        else:
            asyncio.run(command.trigger(data, name, user, source, repeat=repeat))


@app.command()
def tail(
    data: Data = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only this topic, such as follows; may be repeated.")] = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest record that is kept.")
    ] = False,
    raw: Annotated[bool, typer.Option("--json", help="Print the records as they are, one a line.")] = False,
) -> None:
    """Follow what goes over Kafka, a line per event; Ctrl-C ends it."""
    import asyncio
    from contextlib import suppress

    from libs.cli import tail as command

    with one_line_errors(), suppress(KeyboardInterrupt):
        asyncio.run(command.follow(data, topic or [], type_ or [], from_start=from_start, raw=raw))


@app.command()
def user(
    ref: Annotated[str, typer.Argument(help="A subject, such as douyin:u42, or a user id.")],
    data: Data = None,
) -> None:
    """Show one fan as every service knows them."""
    import asyncio

    from libs.cli import user as command

    with one_line_errors():
        asyncio.run(command.user(data, ref))


@app.command()
def demo(
    data: Data = None,
    fans: Annotated[int, typer.Option(min=1, max=1000, help="How many fans are made up.")] = 120,
    seed: Annotated[int, typer.Option(help="Other fans; the same seed on the same day changes nothing.")] = 1,
    orders: Annotated[bool, typer.Option(help="Also send the 6,919 real orders of CDNOW.")] = True,
) -> None:
    """Send real orders and made-up fans through the front door and show what came of them."""
    import asyncio

    from libs.cli.demo import run as command

    with one_line_errors():
        asyncio.run(command.demo(data, fans, seed, orders=orders))


@export_app.command("events")
def export_events(
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="Whose; if absent that of the system's key.")] = None,
    since: Annotated[str | None, typer.Option(help="From this date or time on, such as 2026-03-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this date or time.")] = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")] = None,
) -> None:
    """Write profile's archive to stdout, a CloudEvent a line, in the order of arrival: `superfan replay` takes it."""
    import asyncio
    import sys
    from contextlib import suppress

    from libs.cli import export as command

    with one_line_errors(), suppress(BrokenPipeError):
        count = asyncio.run(command.export_events(data, sys.stdout.buffer, account, since, until, type_ or []))
        typer.echo(f"{count:,} events", err=True)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="JSON lines of events, plain or .gz.")],
    data: Data = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="At most so many events a second.")] = None,
    backfill: Annotated[bool, typer.Option("--backfill", help="Mark all as history: they start no message.")] = False,
    state: Annotated[Path | None, typer.Option(help="How far it got; if absent FILE.progress.json.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="API key to use instead of the system's.")] = None,
) -> None:
    """Send a file of events through ingest; what is known already counts once. Cut off, it goes on where it was.

    What is refused goes to FILE.rejected.jsonl with the reason; exit code 1 then.
    """
    import asyncio

    from libs.cli import replay as command

    with one_line_errors():
        run = command.replay(data, file, state=state, rate=rate, backfill=backfill, key_file=key_file)
        try:
            complete = asyncio.run(run)
        except KeyboardInterrupt:
            typer.echo("stopped; run the same command again to go on", err=True)
            raise typer.Exit(130) from None
    if not complete:
        raise typer.Exit(1)


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the databases of a running system up to date."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.migrate(data)


@topics_app.command("apply")
def topics_apply(
    data: Data = None,
    kafka: Annotated[
        str | None, typer.Option(help="host:port; else SUPERFAN_KAFKA, else the running system's.")
    ] = None,
) -> None:
    """Create the declared topics that are missing; topics that exist stay as they are."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.topics_apply(data, kafka)


@spool_app.command("inspect")
def spool_inspect(
    path: Annotated[
        Path | None, typer.Argument(help="Its folder; else SUPERFAN_INGEST_SPOOL, else the local system's.")
    ] = None,
    data: Data = None,
) -> None:
    """Show how much waits, since when, and of which types; ingest may run meanwhile."""
    from libs.cli import spool as command

    with one_line_errors():
        typer.echo(command.inspect(command.spool_folder(path, data)))


@key_app.command("new")
def key_new(
    account: Annotated[str, typer.Option(help="The account that the key belongs to.")],
    key_id: Annotated[str, typer.Option("--id", help="Its name: a-z, 0-9 and -.")],
    scopes: Annotated[
        str, typer.Option(help="Separated by commas, such as events:write,profile:read; or all.")
    ] = "all",
    trust: Annotated[str, typer.Option(help="server, or client for a key that sits in an app.")] = "server",
) -> None:
    """Make an API key: prints it once, and the block for superfan.toml."""
    from libs.cli.local import commands

    with one_line_errors():
        commands.key_new(account, key_id, scopes, trust)


if __name__ == "__main__":
    app()
