"""Child processes: start them, stop them in time, and find those that a killed launcher left behind."""

import asyncio
import ctypes
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG = 1


class LaunchError(Exception):
    """Something that the user has to put right; the text is one clear line (log lines may follow)."""


@dataclass(frozen=True)
class Mark:
    """What makes a process recognisable later: process ids are used again, start times with them are not."""

    pid: int
    started: float
    command: str

    @classmethod
    def of(cls, pid: int) -> "Mark":
        """Marks a live process; raises psutil.NoSuchProcess."""
        process = psutil.Process(pid)
        return cls(pid, process.create_time(), _program(process))

    def find(self) -> psutil.Process | None:
        """The process, if it is still the one that was marked."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.5 and process.status() != psutil.STATUS_ZOMBIE
            return process if same and _program(process) == self.command else None
        except psutil.Error:
            return None


def _program(process: psutil.Process) -> str:
    command = process.cmdline()
    return Path(command[0].split()[0]).name if command and command[0] else process.name()


class Child:
    """One child process whose output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, stop_signal: signal.Signals) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.stop_signal = stop_signal
        self._log_start = log.stat().st_size if log.exists() else 0
        self.popen: subprocess.Popen[bytes] | None = None

    @classmethod
    def spawn(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> "Child":
        """Starts a process in a session of its own, so that Ctrl-C reaches the launcher only."""
        child = cls(name, command, log=log, stop_signal=stop_signal)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child.popen = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_end_with_parent(stop_signal),  # noqa: PLW1509 - a single prctl call
                **as_user(user),
            )
        return child

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def check(self) -> None:
        """Raises LaunchError with the last log lines when the process has ended."""
        if not self.running:
            code = self.popen.returncode if self.popen else None
            raise LaunchError(f"{self.name} ended with exit code {code}; see {self.log}\n{self.last_lines()}")

    def last_lines(self, count: int = 8) -> str:
        """The end of what this process has written, indented."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, self.log.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join("    " + line[:300] for line in lines[-count:])

    async def stop(self, deadline: float = 20) -> None:
        """Asks the process to end and kills it after `deadline` seconds."""
        if self.popen is None:
            return
        if self.running:
            self.popen.send_signal(self.stop_signal)
            await _until(lambda: not self.running, deadline)
        if self.running:
            self.popen.kill()
        await asyncio.to_thread(self.popen.wait)

    async def kill(self) -> None:
        """SIGKILL, for tests of what happens then."""
        if self.popen is not None:
            self.popen.kill()
            await asyncio.to_thread(self.popen.wait)


async def stop_marked(marks: Sequence[Mark], deadline: float = 10) -> int:
    """Ends processes of an earlier start, politely first; returns how many were still alive."""
    alive = [process for mark in marks if (process := mark.find())]
    for process in alive:
        # SIGTERM asks PostgreSQL to wait until its clients have gone.
        _signal(process, signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    await _until(lambda: not any(mark.find() for mark in marks), deadline)
    for mark in marks:
        if process := mark.find():
            _signal(process, signal.SIGKILL)
    await _until(lambda: not any(mark.find() for mark in marks), deadline)
    return len(alive)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.02)


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """On Linux the kernel itself ends the child when the launcher is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))

    return ask_kernel


def unprivileged_user() -> str | None:
    """The user for programs that refuse to run as root; None when this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise LaunchError(
        "PostgreSQL does not run as root and there is no user 'postgres' or 'nobody'; start as another user"
    )


def as_user(name: str | None) -> dict[str, Any]:
    """Arguments of subprocess that make a child run as this user."""
    if name is None:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now. They lie below those that outgoing connections take, so
    that none is gone when its server starts seconds later."""
    choose = random.SystemRandom()
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            sock = socket.socket()
            try:
                sock.bind(("127.0.0.1", choose.randrange(20_000, 32_000)))
                sockets.append(sock)
            except OSError:
                sock.close()
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server could listen there now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True
