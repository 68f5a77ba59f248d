"""What several commands share: their common option, and errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder; if absent SUPERFAN_DATA, else .local of the repository.")
]
ServiceName = Annotated[str, typer.Argument(help="profile, segmentation, engagement or rewards.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what the user has to put right into one clear line and exit code 1."""
    from libs.cli.local.processes import LaunchError

    try:
        yield
    except LaunchError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from None
