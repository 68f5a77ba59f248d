"""What a running system leaves in its data folder: who runs, where it is reached, who holds the folder."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from libs.cli.local.processes import LaunchError, Mark

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("ingest", "profile", "segmentation", "engagement", "rewards")
WITH_DATABASE = SERVICES[1:]


def data_folder(given: Path | None) -> Path:
    """The folder named on the command line, else SUPERFAN_DATA, else `.local` of the repository."""
    return (given or Path(os.environ.get("SUPERFAN_DATA") or ROOT / ".local")).absolute()


@dataclass
class State:
    """`state.json`: the launcher and its children, so that a later start finds what was left behind."""

    launcher: Mark | None = None
    phase: str = "starting"
    processes: dict[str, Mark] = field(default_factory=dict)


class Folder:
    """The data folder of one system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config"
        self.logs = root / "logs"
        self.run_json = root / "run.json"
        self._state_json = root / "state.json"
        self._lock: TextIO | None = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def fresh_log(self, name: str) -> Path:
        """The log of a process about to start; what the start before wrote is kept as NAME.log.1."""
        path = self.log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_name(f"{name}.log.1"))
        return path

    def hold(self) -> None:
        """Takes the folder for this process until it ends; raises LaunchError when another launcher has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            launcher = self.read_state().launcher
            by = f" by process {launcher.pid}" if launcher else ""
            raise LaunchError(
                f"already started{by} in {self.root}: see `superfan status`, or `superfan down`"
            ) from None
        self._lock = lock

    @property
    def held(self) -> bool:
        return self._lock is not None

    def release(self) -> None:
        """Lets another launcher have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_state(self) -> State:
        """An empty state when there is none or it cannot be read."""
        try:
            raw = json.loads(self._state_json.read_text())
            launcher = Mark(**raw["launcher"]) if raw["launcher"] else None
            return State(launcher, raw["phase"], {name: Mark(**mark) for name, mark in raw["processes"].items()})
        except (OSError, ValueError, KeyError, TypeError):
            return State(phase="stopped")

    def write_state(self, state: State) -> None:
        _write(self._state_json, asdict(state))

    def write_run(self, run: dict[str, Any]) -> None:
        """Addresses and the key; readable for the owner only, since database passwords are in it."""
        _write(self.run_json, run)

    def read_run(self) -> dict[str, Any]:
        """Raises LaunchError when nothing runs."""
        try:
            run: dict[str, Any] = json.loads(self.run_json.read_text())
        except (OSError, ValueError):
            raise LaunchError(f"nothing runs in {self.root}: start it with `make run` or `superfan up`") from None
        return run

    def forget(self) -> None:
        """Removes what tells of a running system."""
        self.run_json.unlink(missing_ok=True)
        self._state_json.unlink(missing_ok=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    half = path.with_name(path.name + ".half")
    half.touch(mode=0o600)
    half.write_text(json.dumps(content, indent=2) + "\n")
    half.replace(path)
