"""What the processes say of themselves on their metrics port."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from libs.cli.doctor.finding import Finding, age_text, fail, first_line, ok, warn
from libs.cli.local.state import Folder

OLD_SECONDS = 60
"""Work that waits for longer is worth a look."""


@dataclass(frozen=True)
class ServiceState:
    """`unwell`: reasons by check, of liveness and readiness; `notices`: what it tells besides. `problem`: why nothing
    could be read. `spool`: figures of ingest's spool by metric; empty for others."""

    name: str
    problem: str = ""
    alive: bool = True
    unwell: dict[str, str] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    config_valid: bool = True
    config_sha256: str = ""
    spool: Mapping[str, float] = field(default_factory=dict)


async def read_service(name: str, url: str) -> ServiceState:
    """Asks /livez, /readyz and /metrics of one process."""
    from prometheus_client.parser import text_string_to_metric_families

    async with httpx.AsyncClient(trust_env=False, timeout=10, base_url=url) as http:
        try:
            live, ready, metrics = [await http.get(path) for path in ("/livez", "/readyz", "/metrics")]
            samples = [s for family in text_string_to_metric_families(metrics.text) for s in family.samples]
            checks = {**ready.json()["checks"], **live.json()["checks"]}
            notices = ready.json().get("notices", {})
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return ServiceState(name, problem=f"no answer at {url}: {first_line(error)}")
    values = {s.name: s for s in samples if s.name.startswith("superfan_config")}
    valid, info = values.get("superfan_config_valid"), values.get("superfan_config_info")
    return ServiceState(
        name,
        alive=live.status_code == 200,
        unwell={check: reason for check, reason in checks.items() if reason != "ok"},
        notices={notice: text for notice, text in notices.items() if text != "ok"},
        config_valid=valid is None or valid.value == 1,
        config_sha256=info.labels["sha256"] if info else "",
        spool={
            s.name: s.value for s in samples if s.name.startswith("superfan_spool_") and not s.name.endswith("_created")
        },
    )


def check_service(service: ServiceState, folder: Folder) -> Finding:
    """Whether a process lives and is ready, with its own reasons."""
    name = f"service {service.name}"
    log = folder.log(service.name)
    where = f"its log: {log}" if log.exists() else "its log"
    if service.problem:
        return fail(name, service.problem, f"see superfan status and {where}; start it again if it has ended")
    reasons = "; ".join(f"{check}: {reason}" for check, reason in service.unwell.items())
    if not service.alive:
        return fail(name, f"hangs: {reasons}", "restart this process: its liveness check fails")
    if reasons:
        return fail(name, f"not ready: {reasons}", f"mend what it names, then see {where}; it recovers by itself")
    if stop := service.notices.get("line"):
        return fail(name, f"ready, but {stop}", f"mend the cause; then superfan consumer resume {service.name}")
    if paused := service.notices.get("paused"):
        return warn(name, f"ready, but paused: {paused}", f"when it may go on: superfan consumer resume {service.name}")
    return ok(name, "ready")


def check_spool(service: ServiceState) -> Finding:
    """What waits on ingest's disk for Kafka."""
    name = f"spool {service.name}"
    waiting, age = (service.spool.get(f"superfan_spool_{what}", 0) for what in ("events", "oldest_seconds"))
    damaged = sum(service.spool.get(f"superfan_spool_{what}_total", 0) for what in ("skipped", "set_aside"))
    detail = f"{waiting:.0f} waiting, the oldest for {age_text(age)}" if waiting else "empty"
    if damaged:
        return warn(name, f"{detail}; {damaged:.0f} damaged events or files", "check its disk; its log names each")
    if age > OLD_SECONDS:
        return warn(name, detail, "see kafka; superfan spool inspect tells what waits. It drains by itself")
    return ok(name, detail)


def check_configurations(services: Sequence[ServiceState], path: str) -> Finding:
    """Whether all processes use the configuration that lies on disk."""
    from libs.common.config import ConfigError, load

    name = "config in use"
    known = {service.name: service.config_sha256 for service in services if service.config_sha256}
    stale = [service.name for service in services if not service.config_valid]
    if stale:
        advice = f"correct {path}: they keep the last good one; their logs name each problem"
        return fail(name, f"the file is not valid for {', '.join(stale)}", advice)
    try:
        on_disk = load(Path(path)).sha256
    except ConfigError:
        return warn(name, "the file cannot be compared", f"correct {path}")
    other = [service for service, sha256 in known.items() if sha256 != on_disk]
    if other:
        advice = "files are read again every 10 s; if it stays so, these processes see another file"
        return warn(name, f"{', '.join(other)} use another one than {path}", advice)
    return ok(name, f"{on_disk[:12]} in {len(known)} processes")
