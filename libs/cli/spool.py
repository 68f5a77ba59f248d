"""`superfan spool inspect`: what waits on ingest's disk."""

import os
import sqlite3
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import orjson

from libs.cli.local.processes import LaunchError
from libs.cli.local.state import data_folder


def spool_folder(given: Path | None, data: Path | None) -> Path:
    """The folder named on the command line, else SUPERFAN_INGEST_SPOOL, else that of the local system."""
    if given is not None:
        return given.parent if given.is_file() else given
    named = os.environ.get("SUPERFAN_INGEST_SPOOL") if data is None else None
    return Path(named) if named else data_folder(data) / "spool"


def inspect(folder: Path) -> str:
    """A few lines about the spool in `folder`. Raises LaunchError when it cannot be read."""
    from services.ingest.spool import scan

    types: Counter[str] = Counter()
    size = damaged = 0
    oldest: float | None = None
    try:
        for row in scan(folder):
            if row is None:
                damaged += 1
                continue
            types[orjson.loads(row.record.value)["type"]] += 1
            size += len(row.record.key) + len(row.record.value)
            oldest = row.stored if oldest is None else min(oldest, row.stored)
    except sqlite3.Error as error:
        raise LaunchError(f"the spool in {folder} cannot be read: {error}") from None
    lines = [f"events   {types.total()}", f"bytes    {size}"]
    if oldest is not None:
        lines.append(f"oldest   {timedelta(seconds=round(max(0.0, time.time() - oldest)))} ago")
    lines += [f"type     {name} {count}" for name, count in types.most_common()]
    if damaged:
        lines.append(f"damaged  {damaged}")
    aside = sorted(path.name for path in folder.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))
    lines += [f"aside    {name}" for name in aside]
    return "\n".join(lines)
