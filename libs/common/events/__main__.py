"""Prints docs/events.md, compares it with a file, or prints JSON Schemas."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from libs.common.events.catalogue import EVENT_TYPES
from libs.common.events.docs import events_page, schema


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when the file given to `--check` differs from the models."""
    parser = argparse.ArgumentParser(prog="python -m libs.common.events", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    docs = commands.add_parser("docs", help="print the page, or compare it with FILE")
    docs.add_argument("--check", type=Path, metavar="FILE")
    schemas = commands.add_parser("schema", help="print the JSON Schema of TYPE, or of any event")
    schemas.add_argument("type", nargs="?", choices=EVENT_TYPES, metavar="TYPE")
    chosen = parser.parse_args(arguments)

    if chosen.command == "schema":
        sys.stdout.write(json.dumps(schema(chosen.type), ensure_ascii=False, indent=2) + "\n")
    elif chosen.check is None:
        sys.stdout.write(events_page())
    elif not chosen.check.exists() or chosen.check.read_text(encoding="utf-8") != events_page():
        sys.stderr.write(f"{chosen.check} is out of date: python -m libs.common.events docs > {chosen.check}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
