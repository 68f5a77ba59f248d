"""The version before the newest change of a database's schema, as files."""

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIGRATIONS = "services/*/migrations/versions/*.py"


class NoHistoryError(Exception):
    """Says why the version before is not to be had."""


def previous_revision() -> str:
    """The commit before the newest one, or the newest merge, that added a migration. Raises NoHistoryError."""
    added = _git("log", "--first-parent", "-1", "--diff-filter=A", "--format=%H", "--", f":(glob){MIGRATIONS}").strip()
    if not added:
        raise NoHistoryError("no commit of this clone has added a migration")
    return _git("rev-parse", "--verify", "--quiet", f"{added}^1").strip()


def extract(revision: str, folder: Path) -> Path:
    """The code of `revision` below `folder`, to be run by this version's environment. Raises NoHistoryError."""
    archive = _git_bytes("archive", revision, "libs", "services")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def changed_services(old: Path) -> list[str]:
    """The services that have migrations which the version in `old` has not."""
    migrations = [path.relative_to(ROOT) for path in ROOT.glob(MIGRATIONS)]
    return sorted({path.parts[1] for path in migrations if not (old / path).exists()})


def _git(*arguments: str) -> str:
    return _git_bytes(*arguments).decode()


def _git_bytes(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except OSError as error:
        raise NoHistoryError(f"git cannot be run: {error}") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip() or "the clone's history does not go back so far"
        raise NoHistoryError(f"git {arguments[0]}: {reason}") from None
