"""A whole system, started by the command that people use."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


class LocalSystem:
    """`superfan` on one data folder. Every call is bounded in time."""

    def __init__(self, data: Path, env: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.env = {**os.environ, **(env or {})}

    def cli(self, *arguments: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        """Runs `superfan ARGUMENTS --data …`; its output is in `stdout` and `stderr`."""
        return subprocess.run(
            [sys.executable, "-m", "libs.cli.main", *arguments, "--data", str(self.data)],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Starts on free ports and returns when all is ready, or has failed."""
        return self.cli("up", "--ports", "auto", "--detach", *arguments)

    def must_start(self, *arguments: str) -> dict[str, Any]:
        """Starts and returns run.json."""
        done = self.up(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.run

    @property
    def run(self) -> dict[str, Any]:
        """The content of run.json."""
        content: dict[str, Any] = json.loads((self.data / "run.json").read_text())
        return content

    def pids(self) -> dict[str, int]:
        """The process ids of `launcher`, `postgres`, `kafka` and the services, as last written down."""
        state = json.loads((self.data / "state.json").read_text())
        return {name: mark["pid"] for name, mark in {"launcher": state["launcher"], **state["processes"]}.items()}

    def process(self, name: str) -> psutil.Process:
        """A process that runs; raises psutil.NoSuchProcess."""
        return psutil.Process(self.pids()[name])

    def processes(self) -> list[psutil.Process]:
        """All processes but the launcher's."""
        return [psutil.Process(pid) for name, pid in self.pids().items() if name != "launcher"]

    def wipe(self) -> None:
        """Stops everything and deletes the data."""
        if self.data.exists():
            done = self.cli("down", "--wipe")
            assert done.returncode == 0, done.stdout + done.stderr
