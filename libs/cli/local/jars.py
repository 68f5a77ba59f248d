"""Apache Kafka's jars: fetched once per user by Maven coordinates, never used unless the SHA-256 is the locked one.

Run as a program it resolves the versions below anew and rewrites the lock.
"""

import hashlib
import os
import shutil
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from libs.cli.local.processes import LaunchError
from libs.cli.local.tools import LOCKS, Say, cache_folder

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.2.0"
# Resolved apart from one another: together, an older kafka-clients would win.
ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
LOCK = LOCKS / "kafka" / "jars.lock"


@dataclass(frozen=True)
class Jar:
    """One locked file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def intact(self, folder: Path) -> bool:
        path = folder / self.name
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


def locked_jars() -> list[Jar]:
    """The lock file's content."""
    jars = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def jars_folder() -> Path:
    """Where the jars of this very lock are kept."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]}"


def fetch_jars(say: Say) -> Path:
    """The folder with all jars, each checked; what is missing or broken is fetched."""
    folder = jars_folder()
    jars = locked_jars()
    missing = [jar for jar in jars if not jar.intact(folder)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        say(f"fetching Apache Kafka {KAFKA_VERSION} once: {len(missing)} of {len(jars)} files")
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as temporary, ThreadPoolExecutor(6) as pool:
            size = 0
            for count, fetched in enumerate(pool.map(lambda jar: _fetch(jar, Path(temporary), folder), missing), 1):
                size += fetched
                if count % 5 == 0 or count == len(missing):
                    say(f"fetching Apache Kafka {KAFKA_VERSION}: {count}/{len(missing)} files, {size / 1e6:.0f} MB")
    return folder


def _fetch(jar: Jar, temporary: Path, folder: Path) -> int:
    """Fetches one jar into `folder`; returns its size in bytes."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=temporary, timeout=30)
    context.remote_repos = {**GlobalSettings.load().repositories, **context.remote_repos}
    path = _download(jar, context)
    if hashlib.sha256(path.read_bytes()).hexdigest() != jar.sha256:
        raise LaunchError(f"{jar.name} was fetched with another SHA-256 than {LOCK} says: it is not used")
    size = path.stat().st_size
    path.replace(folder / jar.name)
    return size


def _download(jar: Jar, context: "MavenContext") -> Path:
    for attempt in range(3):
        try:
            return Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            shutil.rmtree(context.repo_cache / jar.group.replace(".", os.sep) / jar.artifact, ignore_errors=True)
            if attempt == 2:
                raise LaunchError(
                    f"Apache Kafka could not be fetched: is the Maven repository reachable? ({jar.name}: "
                    f"{type(error).__name__}) A broker of yours is used with SUPERFAN_KAFKA=host:port"
                ) from None
    raise AssertionError("unreachable")


def write_lock() -> None:
    """Resolves the endpoints and writes what was found to the lock file."""
    import jgo

    found = set()
    with tempfile.TemporaryDirectory() as temporary:
        for endpoint in ENDPOINTS:
            environment = jgo.build(endpoint, cache_dir=Path(temporary))
            lock = next(Path(environment.path).rglob("jgo.lock.toml"))
            for item in tomllib.loads(lock.read_text())["dependencies"]:
                found.add(f"{item['groupId']}:{item['artifactId']}:{item['version']} {item['sha256']}")
    clients = f"org.apache.kafka:kafka-clients:{KAFKA_VERSION} "
    if not any(line.startswith(clients) for line in found):
        raise LaunchError(f"kafka-clients did not resolve to {KAFKA_VERSION}")
    head = [line for line in LOCK.read_text().splitlines() if line.startswith("#")]
    LOCK.write_text("\n".join([*head, *sorted(found)]) + "\n")


if __name__ == "__main__":
    write_lock()
