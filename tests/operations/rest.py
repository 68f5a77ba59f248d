"""A steady stream of reads and writes to every API, and the memory of what was answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.operations.fleet import Fleet

SUBJECT = "douyin:u0"
USER = f"/v1/users/{quote(SUBJECT)}"
READS = {
    "profile": (USER, f"{USER}/timeline", f"{USER}/overview"),
    "segmentation": (f"{USER}/ladder", "/v1/segments", "/v1/rfm/runs"),
    "engagement": (f"{USER}/messages", "/v1/decisions", "/v1/contact-policy"),
    "rewards": (f"{USER}/points", f"{USER}/ledger", f"{USER}/level"),
}


def _policy(number: int) -> dict[str, Any]:
    quiet = {"start": "22:00", "end": "09:00", "spread_seconds": 600}
    return {"quiet_hours": quiet, "minimum_gap_seconds": number, "caps": []}


@dataclass(frozen=True)
class Write:
    """`body` makes the body of the n-th one; `count` is a statement that counts in the database what they have done."""

    method: str
    path: str
    body: Callable[[int], dict[str, Any]]
    count: str


WRITES = {
    "profile": Write(
        "POST",
        "/v1/links",
        lambda n: {"subjects": [f"douyin:w{n}", f"wechat.x:w{n}"], "evidence": "login", "reason": "a login"},
        "select count(*) / 2 from link_decision where account = $1 and why = 'explicit'",
    ),
    "segmentation": Write("POST", "/v1/rfm/runs", lambda _: {}, "select count(*) from rfm_run where account = $1"),
    "engagement": Write("PUT", "/v1/contact-policy", _policy, "select count(*) from contact_policy where account = $1"),
    "rewards": Write(
        "POST",
        f"{USER}/adjustments",
        lambda _: {"points": 1, "reason": "operations"},
        "select coalesce(sum(points), 0) from ledger_entry"
        " where account = $1 and book = 'wallet' and rule = 'adjustment'",
    ),
}


@dataclass
class Answers:
    """`waits` are seconds from the instant at which a request was due; `failed` says what was wrong with which."""

    waits: list[float] = field(default_factory=list)
    written: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


class Rest:
    """Three reads and a write in turn to each of `services`, `rate` requests a second each, over kept connections (or a
    new one for each request), through the balancers. The account is this stream's own."""

    def __init__(
        self, fleet: Fleet, account: str, services: Iterable[str], *, rate: float, keep_alive: bool = True
    ) -> None:
        self.answers = Answers()
        self._fleet = fleet
        self._account = account
        self._services = list(services)
        self._rate = rate
        headers = fleet.authorization(account) | ({} if keep_alive else {"Connection": "close"})
        self._http = httpx.AsyncClient(timeout=30, headers=headers)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """The fan whom the requests are about."""
        order = {"order_id": "o1", "amount_minor": 100, "currency": "CNY"}
        events = [("follow", {}), ("order.paid", order)]
        await self._fleet.post(
            self._account,
            [
                {
                    "specversion": "1.0",
                    "id": f"rest-{kind}",
                    "source": "/rest",
                    "type": kind,
                    "subject": SUBJECT,
                    "data": data,
                }
                for kind, data in events
            ],
        )
        await self._fleet.applied()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(service)) for service in self._services]

    async def stop(self) -> Answers:
        """Waits for the answers that are due."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._http.aclose()
        return self.answers

    async def differences(self) -> list[str]:
        """Where the databases do not hold exactly the writes that were answered with success."""
        found = []
        for service in self._services:
            ((count,),) = await self._fleet.query(service, WRITES[service].count, self._account)
            if count != self.answers.written[service]:
                found.append(f"{service} answered {self.answers.written[service]} writes and holds {count}")
        return found

    async def _run(self, service: str) -> None:
        started = time.monotonic()
        waiting: set[asyncio.Task[None]] = set()
        number = 0
        while not self._stopping:
            due = started + number / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._ask(service, number, due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            number += 1
        if waiting:
            await asyncio.gather(*waiting)

    async def _ask(self, service: str, number: int, due: float) -> None:
        turn, place = divmod(number, 4)
        write = WRITES[service] if place == 3 else None
        method, path = (write.method, write.path) if write else ("GET", READS[service][place])
        try:
            response = await self._http.request(
                method,
                self._fleet.url(service, path),
                json=write.body(turn + 1) if write else None,
                headers={"Idempotency-Key": f"operations-{turn}"} if write else {},
            )
        except httpx.TransportError as error:
            self.answers.failed.append(f"{method} {path} of {service}: {error!r}")
            return
        self.answers.waits.append(time.monotonic() - due)
        if not response.is_success:
            self.answers.failed.append(f"{method} {path} of {service}: {response.status_code} {response.text[:200]}")
        elif write:
            self.answers.written[service] += 1
