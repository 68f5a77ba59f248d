"""`superfan doctor`: looks at a running system, or at this machine when none runs, and says what to do."""

import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path

import typer

from libs.cli.doctor.finding import Finding
from libs.cli.local.state import Folder, data_folder

COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(data: Path | None, *, as_json: bool) -> None:
    """Prints a line per check, and beneath each that is not ok what to do. Exit code 1 when one fails."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of it is said in a finding
    folder = Folder(data_folder(data))
    running = folder.run_json.exists()
    if running:
        from libs.cli.doctor.running import examine

        findings = asyncio.run(examine(folder.read_run(), folder))
    else:
        from libs.cli.doctor.machine import examine_machine

        findings = asyncio.run(examine_machine(folder))
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        content = {"running": running, "ok": not failed, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        typer.secho(f"{finding.level:<5}", fg=COLOURS[finding.level], nl=False)
        typer.echo(f" {finding.check:<{width}}  {finding.detail}")
        if finding.advice:
            typer.echo(f"      {'':<{width}}  → {finding.advice}")
    count = {level: sum(finding.level == level for finding in findings) for level in COLOURS}
    typer.echo(f"\n{count['ok']} ok, {count['warn']} to look at, {count['fail']} wrong")
