"""What a machine must have before `superfan up`; nothing is fetched or started by looking."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from libs.cli.doctor.finding import Finding, fail, first_line, ok, warn
from libs.cli.local.jars import KAFKA_VERSION, jars_folder, locked_jars
from libs.cli.local.kafka import installed_java, java_major
from libs.cli.local.postgres import installed_programs, major_version
from libs.cli.local.processes import port_is_free
from libs.cli.local.state import Folder
from libs.cli.local.tools import locked_version, wheel_place
from libs.cli.local.up import HTTP_PORTS, KAFKA_PORT, METRICS_PORTS

GIB = 1 << 30
FETCHED = "it is fetched at the first start, from the package index that pip reaches"


async def examine_machine(folder: Folder) -> list[Finding]:
    """All checks for a system that does not run."""
    return [
        _running(folder),
        _python(),
        await _kafka(),
        await asyncio.to_thread(_jars),
        await _postgres(),
        _ports(),
        check_disk(folder),
        check_config(folder.config / "superfan.toml"),
    ]


def _running(folder: Folder) -> Finding:
    state = folder.read_state()
    if state.launcher is not None and state.launcher.find() is not None:
        return warn("system", f"it is {state.phase} in {folder.root}", "look again when it is ready")
    return warn("system", f"nothing runs in {folder.root}", "start it: make run, or superfan up")


def _python() -> Finding:
    return ok("python", f"{sys.version.split()[0]}  {sys.executable}")


async def _kafka() -> Finding:
    external = os.environ.get("SUPERFAN_KAFKA")
    if external:
        from libs.common.kafka import cluster_id

        try:
            cluster = await asyncio.wait_for(cluster_id(external), 20)
        except Exception as error:
            advice = "start that broker, or unset SUPERFAN_KAFKA: then one is started on this machine"
            return fail("kafka", f"{external} (SUPERFAN_KAFKA): {first_line(error)}", advice)
        return ok("kafka", f"{external} (SUPERFAN_KAFKA), cluster {cluster}")
    return await asyncio.to_thread(check_java)


def check_java() -> Finding:
    """The Java that a broker on this machine runs on."""
    java = installed_java()
    if java is not None:
        return ok("java", f"{java_major(java)}  {java}")
    if wheel_place("java").exists():
        return ok("java", f"{locked_version('java')}, a wheel")
    return warn("java", f"neither Java 17 nor {locked_version('java')} is here", FETCHED)


def _jars() -> Finding:
    folder, jars = jars_folder(), locked_jars()
    missing = [jar for jar in jars if not jar.intact(folder)]
    if os.environ.get("SUPERFAN_KAFKA"):
        return ok("kafka jars", "not needed: SUPERFAN_KAFKA")
    if missing:
        advice = "they are fetched at the first start, from the Maven repository"
        return warn("kafka jars", f"{len(missing)} of {len(jars)} are not in {folder}", advice)
    return ok("kafka jars", f"Apache Kafka {KAFKA_VERSION}, {len(jars)} files as locked")


async def _postgres() -> Finding:
    url = os.environ.get("SUPERFAN_PG_URL")
    if url:
        import asyncpg

        try:
            connection = await asyncpg.connect(url, timeout=10)
        except Exception as error:
            advice = "start that server, or unset SUPERFAN_PG_URL: then one is started on this machine"
            return fail("postgres", f"SUPERFAN_PG_URL: {first_line(error)}", advice)
        version = connection.get_server_version()
        await connection.close()
        return check_postgres_version(version.major, "SUPERFAN_PG_URL")
    programs = await asyncio.to_thread(installed_programs)
    if programs:
        return ok("postgres", f"{major_version(programs[0])}  {programs[0]}")
    if wheel_place("postgres").exists():
        return ok("postgres", f"{locked_version('postgres')}, a wheel")
    return warn("postgres", f"neither PostgreSQL 15 nor {locked_version('postgres')} is here", FETCHED)


def check_postgres_version(major: int, where: str) -> Finding:
    """PostgreSQL must be 15 or newer."""
    if major < 15:
        return fail("postgres", f"{major} ({where})", "use PostgreSQL 15 or newer")
    return ok("postgres", f"{major} ({where})")


def _ports() -> Finding:
    wanted = {port: name for name, port in HTTP_PORTS.items()}
    wanted |= {port: f"{name} metrics" for name, port in METRICS_PORTS.items()}
    if not os.environ.get("SUPERFAN_KAFKA"):
        wanted[KAFKA_PORT] = "kafka"
    taken = [f"{port} ({name})" for port, name in wanted.items() if not port_is_free(port)]
    if taken:
        return warn(
            "ports", f"taken: {', '.join(taken)}", "stop those programs, or start with superfan up --ports auto"
        )
    return ok("ports", f"{len(wanted)} are free")


def check_disk(folder: Folder) -> Finding:
    """Room for Kafka, PostgreSQL and the spool."""
    place = next(path for path in (folder.root, *folder.root.parents) if path.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / GIB:.1f} GiB of {usage.total / GIB:.0f} free at {folder.root}"
    advice = "make room, or use another folder: SUPERFAN_DATA or --data"
    if usage.free < GIB / 2:
        return fail("disk", detail, advice)
    if usage.free < 3 * GIB:
        return warn("disk", detail, advice)
    return ok("disk", detail)


def check_config(path: Path) -> Finding:
    """The configuration file as it is now."""
    from libs.common.config import ConfigError, load

    if not path.exists():
        return ok("config", f"{path} is made at the first start")
    try:
        config = load(path)
    except ConfigError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines())
        return fail("config", reason, "correct the file; services that run keep the last good one until then")
    return ok(
        "config", f"{path}: {len(config.accounts)} accounts, {len(config.keys)} keys, {len(config.sources)} sources"
    )
