"""The checks of a running system: configuration, Kafka, databases, services, and the work that waits."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.cli.doctor.databases import Database, Unreachable, read_database
from libs.cli.doctor.finding import Finding, age_text, fail, first_line, ok, warn
from libs.cli.doctor.machine import check_config, check_disk, check_java, check_postgres_version
from libs.cli.doctor.services import OLD_SECONDS, check_configurations, check_service, check_spool, read_service
from libs.cli.local.lag import Offsets, consumed_topics
from libs.cli.local.state import WITH_DATABASE, Folder
from libs.common.events import TOPICS
from libs.common.kafka import cluster_id, log_ends
from libs.common.kafka.admin import topic_settings
from libs.common.kafka.inspect import TopicState, append_times, topic_states
from libs.common.migrate import head_revision

KAFKA_SECONDS = 20
OUTBOX_FULL = 100_000
CLOCK_WARN, CLOCK_FAIL = 2.0, 30.0


async def examine(run: dict[str, Any], folder: Folder) -> list[Finding]:
    """All checks of the system that run.json tells of."""
    findings = [*_launcher(folder), await asyncio.to_thread(_config, run), check_disk(folder)]
    if "kafka" in folder.read_state().processes:
        findings.append(await asyncio.to_thread(check_java))
    kafka, databases, services = await asyncio.gather(
        _Kafka.read(str(run["kafka"])),
        asyncio.gather(*(read_database(service, run["postgres"][service]) for service in WITH_DATABASE)),
        asyncio.gather(*(read_service(name, urls["metrics"]) for name, urls in run["services"].items())),
    )
    findings += kafka.findings
    reached = [database for database in databases if isinstance(database, Database)]
    findings += [_unreachable(database) for database in databases if isinstance(database, Unreachable)]
    findings += _servers(reached)
    for database in reached:
        findings += [_migrations(database), _outbox(database), _dead_letters(database)]
        if kafka.cluster is not None:
            findings.append(_positions(database, kafka.cluster))
            findings.append(await _lag(database, kafka))
    findings += [check_service(service, folder) for service in services]
    findings += [check_spool(service) for service in services if service.spool]
    findings.append(check_configurations(services, run["config"]))
    return findings


def _launcher(folder: Folder) -> list[Finding]:
    launcher = folder.read_state().launcher
    if launcher is None:
        return []
    if launcher.find() is None:
        detail = f"the program that started this system (process {launcher.pid}) is gone"
        return [fail("system", detail, "start it again: superfan up; nothing that was accepted is lost")]
    return [
        ok("system", f"runs in {folder.root} since {datetime.fromtimestamp(launcher.started, UTC):%Y-%m-%d %H:%M} UTC")
    ]


def _config(run: dict[str, Any]) -> Finding:
    return check_config(Path(run["config"]))


class _Kafka:
    """What Kafka says; `cluster` is None when it does not answer."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.cluster: str | None = None
        self.begins: Offsets = {}
        self.ends: Offsets = {}
        self.findings: list[Finding] = []

    @classmethod
    async def read(cls, bootstrap: str) -> "_Kafka":
        kafka = cls(bootstrap)
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                cluster = await cluster_id(bootstrap)
                states = await topic_states(bootstrap, [topic.name for topic in TOPICS])
                kafka.begins, kafka.ends = await log_ends(bootstrap, states)
        except Exception as error:
            advice = "start the broker or mend the network; ingest keeps events in its spool, consumers wait"
            kafka.findings = [fail("kafka", f"{bootstrap} does not answer: {first_line(error)}", advice)]
            return kafka
        kafka.cluster = cluster
        kafka.findings = [ok("kafka", f"{bootstrap}, cluster {cluster}"), *_topics(states)]
        return kafka


def _topics(states: dict[str, TopicState]) -> list[Finding]:
    findings = []
    missing = [topic.name for topic in TOPICS if topic.name not in states]
    if missing:
        findings.append(fail("topics", f"missing: {', '.join(missing)}", "make them: superfan topics apply"))
    for topic in TOPICS:
        state = states.get(topic.name)
        if state is None:
            continue
        wrong = [
            f"{name} = {state.settings.get(name)}, declared is {value}"
            for name, value in topic_settings(topic).items()
            if state.settings.get(name) != value
        ]
        check, advice = f"topic {topic.name}", "set it with kafka-configs.sh --alter, or declare it so"
        if state.leaderless:
            leaders = f"{state.leaderless} partitions have no leader"
            findings.append(fail(check, "; ".join([leaders, *wrong]), "bring the missing brokers back"))
        elif state.partitions != topic.partitions:
            count = f"{state.partitions} partitions, declared are {topic.partitions}"
            advice = "kafka-topics.sh --alter adds partitions; none can be taken away"
            findings.append(fail(check, "; ".join([count, *wrong]), advice))
        elif wrong:
            findings.append(warn(check, "; ".join(wrong), advice))
    if not findings:
        findings.append(
            ok("topics", f"{len(TOPICS)} with {TOPICS[0].partitions} partitions each, settings as declared")
        )
    return findings


def _unreachable(database: Unreachable) -> Finding:
    advice = "start PostgreSQL or mend the address; consumers wait, the API answers 503, nothing is lost"
    return fail(f"database {database.service}", f"cannot be used: {database.reason}", advice)


def _servers(databases: list[Database]) -> list[Finding]:
    if not databases:
        return []
    oldest = min(databases, key=lambda database: database.major)
    apart = max((database.clock_apart for database in databases), key=abs)
    detail = f"PostgreSQL's clock and this machine's are {abs(apart):.1f} s apart"
    if abs(apart) > CLOCK_WARN:
        advice = "let NTP set the clocks of both machines"
        clock = (fail if abs(apart) > CLOCK_FAIL else warn)("clock", detail, advice)
    else:
        clock = ok("clock", detail)
    return [check_postgres_version(oldest.major, f"{len(databases)} databases"), clock]


def _migrations(database: Database) -> Finding:
    name, head = f"database {database.service}", head_revision(database.service)
    if database.revision == head:
        return ok(name, f"at migration {head}")
    found = f"at migration {database.revision}" if database.revision else "has no tables"
    advice = f"superfan migrate, or python -m services.{database.service} migrate; if it is newer, deploy that version"
    return fail(name, f"{found}, this code is at {head}", advice)


def _outbox(database: Database) -> Finding:
    name = f"outbox {database.service}"
    rows, age = database.outbox, database.outbox_age
    detail = f"{rows} waiting, the oldest for {age_text(age)}" if rows else "empty"
    if rows > OUTBOX_FULL:
        return fail(name, detail, "the consumers pause until Kafka takes them: see kafka, and the service's log")
    if rows and age > OLD_SECONDS:
        return warn(name, detail, "see whether a worker of this service runs and Kafka answers")
    return ok(name, detail)


def _dead_letters(database: Database) -> Finding:
    name = f"dead letters {database.service}"
    if not database.dead_letters:
        return ok(name, "none")
    reasons = ", ".join(f"{count} {error}" for error, count in database.dead_letters.items())
    return warn(
        name,
        reasons,
        f"look at them, mend the cause, redrive or drop them: superfan dead-letters list {database.service}",
    )


def _positions(database: Database, cluster: str) -> Finding:
    name = f"positions {database.service}"
    others = sorted(set(database.offsets) - {cluster})
    topics = {topic for topic, _ in database.offsets.get(cluster, {})}
    unread = [topic for topic in consumed_topics(database.service) if topic not in topics]
    if not topics and others:
        advice = "right after a broker was replaced it begins anew by itself; else SUPERFAN_KAFKA names the wrong one"
        return warn(name, f"none of cluster {cluster}, only of {', '.join(others)}", advice)
    if unread:
        return warn(name, f"never read: {', '.join(unread)}", "see whether a worker of this service runs")
    return ok(name, f"of cluster {cluster}, {len(topics)} topics")


async def _lag(database: Database, kafka: _Kafka) -> Finding:
    name = f"lag {database.service}"
    assert kafka.cluster is not None
    applied = database.offsets.get(kafka.cluster, {})
    topics = consumed_topics(database.service)
    positions = {partition: max(begin, applied.get(partition, 0)) for partition, begin in kafka.begins.items()}
    late = {
        partition: (positions[partition], end)
        for partition, end in kafka.ends.items()
        if partition[0] in topics and end > positions[partition]
    }
    behind = sum(end - position for position, end in late.values())
    if not behind:
        return ok(name, "everything is applied")
    try:
        async with asyncio.timeout(KAFKA_SECONDS):
            times = await append_times(kafka.bootstrap, {key: position for key, (position, _) in late.items()})
    except Exception as error:
        return warn(name, f"{behind} records behind, of unknown age: {first_line(error)}", "see kafka")
    if not times:
        return ok(name, f"{behind} records behind, all of them gone or applied meanwhile")
    age = (datetime.now(UTC) - min(times)).total_seconds()
    detail = f"{behind} records behind, the oldest for {age_text(age)}"
    if age > OLD_SECONDS:
        advice = "if the service is ready, run more workers (up to 12 a topic); else see its reasons and its log"
        return warn(name, detail, advice)
    return ok(name, detail)
