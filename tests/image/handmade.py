"""Reads deploy/Dockerfile and does by hand what its build stage says, in a folder instead of in an image."""

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from string import Template

from libs.cli.local.tools import cache_folder

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
FOLDERS = re.compile(r"(?<![\w./-])/(build|opt/venv|app|var/lib/superfan|run/secrets|etc/superfan)(?![\w-])")
"""What stands for a folder of the image; all else in a command is the machine's."""


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str

    @property
    def pairs(self) -> dict[str, str]:
        """Of ENV and LABEL: KEY=value …"""
        return dict(pair.split("=", 1) for pair in shlex.split(self.value))

    @property
    def exec_form(self) -> list[str]:
        """Of ENTRYPOINT, and of HEALTHCHECK after CMD."""
        command: list[str] = json.loads(self.value[self.value.index("[") :])
        return command


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]


def read(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage, and the stages."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            base, *more = value.split()
            stages.append(Stage(Template(base).substitute(arguments), more[1] if more else ""))
        elif stages:
            stages[-1].instructions.append(Instruction(name, value.strip()))
        else:
            arguments |= Instruction(name, value).pairs
    return arguments, stages


def let_in(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore lets a file of the context in: the last pattern that fits it or a folder above decides."""
    places = [path, *map(str, list(Path(path).parents)[:-1])]
    kept = True
    for pattern in patterns:
        if any(_fits(place, pattern.removeprefix("!")) for place in places):
            kept = pattern.startswith("!")
    return kept


def _fits(place: str, pattern: str) -> bool:
    """`**/` is any depth; everything else begins at the top, and `*` stays within one folder."""
    if pattern.startswith("**/"):
        return fnmatch(Path(place).name, pattern.removeprefix("**/"))
    return fnmatch(place, pattern) and place.count("/") == pattern.count("/")


def copy_from_context(source: str, target: Path) -> None:
    """COPY of a file or of what is in a folder; raises FileNotFoundError when the context has nothing of the kind."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    place = ROOT / source
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    found = [file for file in files if let_in(str(file.relative_to(ROOT)), patterns)]
    if not found:
        raise FileNotFoundError(f"COPY {source}: not in the build's context")
    for file in found:
        copy = target / file.relative_to(place) if place.is_dir() else target
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)


def _digest(layers: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    return hashlib.sha256(f"{sys.version}\n{layers}\n{lock}".encode()).hexdigest()[:12]


class Image:
    """What the Dockerfile makes of one service, in `folder`. What comes before its ARG SERVICE is the same for all: it
    is made once and kept, as Docker keeps layers, until the lock, those lines or Python change."""

    def __init__(self, service: str, folder: Path, text: str) -> None:
        self.service, self.folder = service, folder
        _, (build, self.final) = read(text)
        self._shared = cache_folder() / f"image-{_digest(text.partition('ARG SERVICE')[0])}"
        self._arguments = {"SERVICE": service}
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (cache_folder() / "image.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # clones of the repository share the folder
            self._run_stage(build)
        for copy in self.final.all("COPY"):
            origin, source, target = copy.value.split()
            assert (origin, source) == ("--from=build", target), copy
        self.copied = [copy.value.split()[1] for copy in self.final.all("COPY")]
        (workdir,) = self.final.all("WORKDIR")
        self.workdir = Path(self.placed(workdir.value))
        self.env = {"HOME": "/"}  # as container runtimes set it for a user without an entry in /etc/passwd
        for instruction in self.final.all("ENV"):
            for key, value in instruction.pairs.items():
                self.env[key] = self.placed(Template(value).substitute(self._arguments))
        Path(self.env["SUPERFAN_INGEST_SPOOL"]).mkdir(parents=True, exist_ok=True)

    def placed(self, text: str) -> str:
        """A command or value with the image's folders put below ours."""
        return FOLDERS.sub(lambda match: str(self._place(match[1])), text)

    def _place(self, name: str) -> Path:
        return (self._shared if name in ("build", "opt/venv") else self.folder) / name

    def _run_stage(self, stage: Stage) -> None:
        known: dict[str, str] = {}
        for instruction in stage.instructions:
            value = Template(instruction.value).safe_substitute(known)
            if instruction.name == "ARG":
                name, _, default = instruction.value.partition("=")
                known[name] = self._arguments.get(name, default)
            elif instruction.name == "COPY":
                source, target = value.split()
                copy_from_context(source, Path(self.placed(target)))
            else:
                assert instruction.name == "RUN", instruction
                self._run(self.placed(value), known)

    def _run(self, command: str, arguments: Mapping[str, str]) -> None:
        layers = self._shared / "layers"
        done = layers.read_text().splitlines() if layers.exists() else []
        if command in done:
            return
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {name: value for name, value in arguments.items() if value}
        env["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        result = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"RUN {command}\n{result.stdout}{result.stderr}"
        if str(self.folder) not in command:
            layers.write_text("\n".join([*done, command, ""]))

    def command(self, *arguments: str) -> list[str]:
        """What `docker run IMAGE ARGUMENTS` starts."""
        (entrypoint,) = self.final.all("ENTRYPOINT")
        return [*entrypoint.exec_form, *arguments]

    def files(self) -> dict[Path, int]:
        """Every file that came into the final stage, with the instant of its last change in ns."""
        places = [Path(self.placed(place)) for place in self.copied]
        return {path: path.lstat().st_mtime_ns for place in places for path in place.rglob("*")}

    def protect(self) -> None:
        """Makes the application's files read-only; for whom this means nothing (root), `files` tells changes."""
        for path in [self.workdir, *self.workdir.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)

    def unprotect(self) -> None:
        for path in [self.workdir, *self.workdir.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
