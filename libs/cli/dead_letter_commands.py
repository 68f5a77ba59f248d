"""`superfan dead-letters …`: its commands and their options."""

import asyncio
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.cli.options import Data, ServiceName, one_line_errors

app = typer.Typer(help="Events that a service could not apply.", no_args_is_help=True)

Which = dict[str, str | None]
"""Filter of letters; None stands for any."""
LetterIds = Annotated[list[str] | None, typer.Argument(help="Ids of letters, as `list` shows them.")]
Every = Annotated[bool, typer.Option("--all", help="All letters of the account.")]
FILTERS = {
    "type": typer.Option("--type", help="Only events of this type."),
    "error": typer.Option("--error", help="Only this kind of error, such as ValidationError."),
    "topic": typer.Option("--topic", help="Only this topic, such as superfan.follows."),
    "since": typer.Option("--since", help="First written at or after, such as 2026-06-01T08:00:00Z."),
    "until": typer.Option("--until", help="First written before."),
}


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each filter; it gets them together, as `which`."""

    @wraps(command)
    def filtered(**given: Any) -> None:
        which = {name: given.pop(name) for name in FILTERS}
        command(**given, which=which)

    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, option])
        for name, option in FILTERS.items()
    ]
    own = [
        parameter.replace(kind=kind)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "which"
    ]
    parameters = [*own, *options]
    filtered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    filtered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return filtered


@app.command("list")
@with_filter
def list_letters(
    service: ServiceName,
    which: Which,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
) -> None:
    """Show what could not be applied and why, newest first."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.list_letters(data, service, which, limit))


@app.command()
def show(service: ServiceName, letter_id: str, data: Data = None) -> None:
    """Show one letter with its content, as JSON."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.show(data, service, letter_id))


@app.command()
def edit(
    service: ServiceName,
    letter_id: str,
    file: Annotated[Path, typer.Argument(help="The corrected event as JSON: `value` of `show`, put right.")],
    data: Data = None,
) -> None:
    """Put a corrected event in a letter's place; nothing is applied yet."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.edit(data, service, letter_id, file))


@app.command()
@with_filter
def redrive(
    service: ServiceName,
    which: Which,
    ids: LetterIds = None,
    data: Data = None,
    every: Every = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would come of it.")] = False,
) -> None:
    """Try letters again; each counts once. Exit code 1 when one still cannot be applied."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.redrive(data, service, ids or [], which, every=every, dry_run=dry_run))


@app.command()
@with_filter
def drop(
    service: ServiceName,
    which: Which,
    reason: Annotated[str, typer.Option(help="Why; the service's log keeps it.")],
    ids: LetterIds = None,
    data: Data = None,
    every: Every = False,
) -> None:
    """Delete letters for good: their events are never applied."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.drop(data, service, ids or [], which, reason, every=every))


@app.command()
def resume(service: ServiceName, data: Data = None) -> None:
    """Let a service consume again that too many dead letters have stopped."""
    from libs.cli import dead_letters as command

    with one_line_errors():
        asyncio.run(command.resume(data, service))
