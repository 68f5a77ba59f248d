"""How far each service is behind Kafka, and how to tell that all work is done."""

import asyncio
import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.cli.local.processes import LaunchError
from libs.cli.local.state import WITH_DATABASE

Offsets = Mapping[tuple[str, int], int]


NOTHING: Offsets = {}


@dataclass(frozen=True)
class Lag:
    """One service: records not yet applied by topic, and events in its outbox that are not yet published."""

    service: str
    behind: dict[str, int]
    outbox: int

    @property
    def total(self) -> int:
        return sum(self.behind.values()) + self.outbox


class LagReader:
    """Reads Kafka's offsets, the offsets that the services keep in their databases, and what ingest's spool holds, of
    the system that run.json describes."""

    def __init__(self, run: dict[str, Any]) -> None:
        self._bootstrap: str = run["kafka"]
        self._databases: dict[str, str] = run["postgres"]
        self._ingest: str | None = run.get("services", {}).get("ingest", {}).get("metrics")
        self._topics = {service: consumed_topics(service) for service in WITH_DATABASE}

    async def log(self) -> tuple[Offsets, Offsets]:
        """The begin and the end of every partition that some service reads."""
        from libs.common.kafka import log_ends

        topics = sorted({topic for topics in self._topics.values() for topic in topics})
        return await log_ends(self._bootstrap, topics)

    async def read(self, ends: Offsets, begins: Offsets = NOTHING) -> list[Lag]:
        """The lag of every service behind `ends`; each service's figures are of one snapshot. What lies before
        `begins` is gone: nobody can be behind with it."""
        from libs.common.kafka import cluster_id

        cluster = await cluster_id(self._bootstrap)
        return list(await asyncio.gather(*(self._read(service, cluster, ends, begins) for service in WITH_DATABASE)))

    async def spooled(self) -> int | None:
        """Events that ingest has accepted and Kafka does not have yet; None when it does not answer."""
        if self._ingest is None:
            return 0
        import httpx
        from prometheus_client.parser import text_string_to_metric_families

        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = await client.get(f"{self._ingest}/metrics", headers={"Accept": "text/plain"})
        except httpx.HTTPError:
            return None
        samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
        return int(sum(sample.value for sample in samples if sample.name == "superfan_spool_events"))

    async def _read(self, service: str, cluster: str, ends: Offsets, begins: Offsets) -> Lag:
        import asyncpg

        connection = await asyncpg.connect(self._databases[service], timeout=10)
        try:
            rows = await connection.fetch(
                "select topic, partition, next_offset, 0::bigint as waiting from consumer_offset where cluster_id = $1"
                " union all select '', 0, 0, count(*) from outbox",
                cluster,
            )
        finally:
            await connection.close()
        applied = {(row["topic"], row["partition"]): row["next_offset"] for row in rows if row["topic"]}
        behind = dict.fromkeys(self._topics[service], 0)
        for (topic, partition), end in ends.items():
            if topic in behind:
                begin = begins.get((topic, partition), 0)
                behind[topic] += max(0, end - max(begin, applied.get((topic, partition), 0)))
        return Lag(service, behind, sum(row["waiting"] for row in rows))

    async def wait(self, seconds: float) -> None:
        """Returns when every service has applied everything and nothing new can come of it.

        Why that holds: the spool is empty and the ends are read, then each service has reached them with an empty
        outbox in one snapshot, then the ends are read again. When they have not moved, nobody had anything left from
        which to publish. Events that are handed in meanwhile may or may not be waited for.
        Raises LaunchError after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            spooled = await self.spooled()
            begins, ends = await self.log()
            lags = await self.read(ends, begins)
            if spooled == 0 and all(lag.total == 0 for lag in lags) and (await self.log())[1] == ends:
                return
            if time.monotonic() > deadline:
                behind = [("ingest's spool", spooled), *((lag.service, lag.total) for lag in lags)]
                late = ", ".join(
                    f"{name} {'unknown' if count is None else count}" for name, count in behind if count != 0
                )
                raise LaunchError(f"not done after {seconds:.0f} s: {late or 'events keep coming'}")
            await asyncio.sleep(0.1)


def consumed_topics(service: str) -> tuple[str, ...]:
    """The topics that a service reads, as its consumer declares them."""
    topics: tuple[str, ...] = importlib.import_module(f"services.{service}.consumer").TOPICS
    return topics
