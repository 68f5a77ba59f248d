"""Migrations of all databases in one process: the addresses come on stdin, so that no password shows in a process list.

Does what `python -m services.SERVICE migrate` does for each, at a quarter of the start-up cost.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from libs.cli.local.processes import LaunchError
from libs.cli.local.state import ROOT


def migrate_databases(urls: Mapping[str, str], log: Path) -> None:
    """Brings the database of each service up to date; raises LaunchError."""
    command = [sys.executable, "-m", "libs.cli.local.migrations"]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(dict(urls)), capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    log.write_text(output)
    if done.returncode != 0:
        last = "\n".join("    " + line for line in output.splitlines()[-8:])
        raise LaunchError(f"the databases could not be migrated; see {log}\n{last}")


async def _migrate(urls: Mapping[str, str]) -> None:
    from libs.common.migrate import upgrade

    for service, url in urls.items():
        print(f"migrating {service}", flush=True)
        await upgrade(url, service)


if __name__ == "__main__":
    asyncio.run(_migrate(json.load(sys.stdin)))
