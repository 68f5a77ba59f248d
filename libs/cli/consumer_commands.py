"""`superfan consumer …`: its commands and their options."""

import asyncio
from typing import Annotated

import typer

from libs.cli.options import Data, ServiceName, one_line_errors

app = typer.Typer(help="What a service consumes: pause topics, let them go on.", no_args_is_help=True)

Topics = Annotated[
    list[str] | None, typer.Option("--topic", help="Only this topic, such as follows; may be repeated. Else all.")
]


@app.command()
def status(service: ServiceName, data: Data = None) -> None:
    """Show which topics a service consumes, and why not."""
    from libs.cli import consumer as command

    with one_line_errors():
        asyncio.run(command.status(data, service))


@app.command()
def pause(
    service: ServiceName,
    reason: Annotated[str, typer.Option(help="Why; whoever asks for the status sees it.")],
    topic: Topics = None,
    data: Data = None,
) -> None:
    """Let a service consume topics no more for now: records wait in Kafka, also over restarts."""
    from libs.cli import consumer as command

    with one_line_errors():
        asyncio.run(command.pause(data, service, topic or [], reason))


@app.command()
def resume(service: ServiceName, topic: Topics = None, data: Data = None) -> None:
    """Let a service consume again; without --topic everything, after a stop by dead letters too."""
    from libs.cli import consumer as command

    with one_line_errors():
        asyncio.run(command.resume(data, service, topic or []))
