"""Commands and addresses in runbooks and pages of operations exist: nothing is run here."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from libs.cli.main import app
from libs.common.health import Health
from tests.manifests.metrics import ROOT, declared
from tests.manifests.test_alerts import known_series
from tests.manifests.tools import SERVICES

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of shell in a page."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def commands(page: Path) -> Iterator[list[str]]:
    """What follows `superfan` in lines of shell."""
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        if words and words[0] == "superfan":
            ends = [place for place, word in enumerate(words) if word in (">", "|", "&", "&&")]
            yield words[1 : ends[0] if ends else None]


def mentions(page: Path) -> list[list[str]]:
    """What follows `superfan` in code within sentences, which may leave arguments out."""
    sentences = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [shlex.split(code) for code in re.findall(r"`superfan ([a-z][^`…]*)`", sentences)]


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that is meant, and what is left for it. Raises KeyError or IndexError."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command, rest


def parse(words: list[str]) -> None:
    """Raises when these are no command, or not options and arguments that it takes."""
    command, rest = find(words)
    command.make_context(command.name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    found = list(commands(page))
    assert found
    for words in found:
        parse(words)
    for words in mentions(page):
        command, rest = find(words)
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def paths() -> set[tuple[str, str]]:
    """Method and path of every route that is documented."""
    found: set[tuple[str, str]] = set()
    for service in SERVICES:
        document = json.loads((ROOT / "docs" / "openapi" / f"{service}.json").read_text())
        for path, methods in document["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
            found |= {(method.upper(), pattern) for method in methods}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_addresses_exist(page: Path) -> None:
    known = paths()
    probes = {getattr(route, "path", "") for route in Health("profile").app().routes}
    for line in shell_lines(page):
        for kind, path in re.findall(r"\$(API|METRICS)(/[\w/:.-]+)", line):
            if kind == "METRICS":
                assert path in probes, line
            else:
                method = (re.findall(r"-X (\w+)", line) or ["GET"])[0]
                assert any(method == known_method and re.fullmatch(pattern, path) for known_method, pattern in known), (
                    line
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_metrics_exist(page: Path) -> None:
    names = {name for name in [*declared(), *known_series()] if name.startswith("superfan_")}
    for word in re.findall(r"`(superfan_\w+)", page.read_text()):
        assert any(name.startswith(word) for name in names), word


@pytest.mark.parametrize(
    "line", ["superfan no-such", "superfan lag --no-such", "superfan consumer pause", "superfan dead-letters list"]
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r".*"):
        parse(shlex.split(line)[1:])


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
