"""promtool, and alert rules in the form in which it reads them."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from libs.cli.local.tools import cache_folder

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "k8s" / "components" / "monitoring"
PACKAGE = "prometheus"


def promtool() -> str:
    """The path of promtool: on PATH, in the cache, or out of Debian's package, which needs no root. Raises LookupError
    with a reason when there is none."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    folder = cache_folder() / PACKAGE
    program = folder / "usr" / "bin" / "promtool"
    if not program.exists():
        _unpack(folder)
    return str(program)


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise LookupError("promtool is not installed, and there is no apt-get to fetch it with")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        fetched = subprocess.run(
            ["apt-get", "download", PACKAGE], cwd=place, capture_output=True, text=True, timeout=120, check=False
        )
        packages = list(Path(place).glob("*.deb"))
        if not packages:
            raise LookupError(f"promtool is not installed, and apt-get cannot fetch it: {fetched.stderr.strip()}")
        half = Path(place) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(half)], check=True, timeout=120)
        if not folder.exists():
            half.rename(folder)


def rule_groups() -> list[dict[str, Any]]:
    """The groups of rules.yaml."""
    groups: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    return groups


def write_groups(groups: list[dict[str, Any]], folder: Path) -> None:
    """Each group as a file of its own, named after it, beside a copy of the tests: a test reads only what it needs."""
    for group in groups:
        (folder / f"{group['name']}.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    for test in (MONITORING / "rules_test").glob("*.yaml"):
        shutil.copy(test, folder)
