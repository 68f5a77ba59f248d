"""Events through the real front door at a bounded rate, and the memory of what was answered to each of them."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import orjson

from tests.bench.load import Connection, connect, request_bytes
from tests.support.services import System

RATE = 150
"""Events a second, one event a request."""
ZONE = ZoneInfo("Asia/Shanghai")
"""Of every account that events are sent to: the checker's days are days of this zone."""
CONNECTIONS = 400
TOGETHER = 20
HUNG_SECONDS = 30.0
REPEATS = 0.05
LATE = 0.05
FAILED, HUNG = 0, 1
"""Stand for a status: the connection broke, or no answer came at all."""
KINDS = {"view": 35, "like": 25, "comment": 15, "order.paid": 10, "follow": 15}


class Sent(NamedTuple):
    """One event, as far as its effects depend on it."""

    id: str
    type: str
    subject: str
    day: date
    body: bytes


class Answer(NamedTuple):
    """`at` and `seconds` count from the instant at which the request was due, on the monotonic clock."""

    at: float
    seconds: float
    status: int


@dataclass
class History:
    """What was sent to one account. `unknown` were never acknowledged and may have been stored all the same.

    `poison` names records that no service can apply, as id → topic: they were laid on Kafka beside the front door.
    """

    account: str
    source: str
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    unknown: dict[str, Sent] = field(default_factory=dict)
    poison: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    def note(self, sent: Sent, at: float, status: int) -> None:
        """The answer to one attempt to send it."""
        self.answers.append(Answer(at, time.monotonic() - at, status))
        if status == 202:
            self.acknowledged[sent.id] = sent
            self.unknown.pop(sent.id, None)
        elif sent.id not in self.acknowledged:
            self.unknown[sent.id] = sent

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)


class Load:
    """Sends to one account in the background, on a timetable that does not wait for answers.

    Six per cent of the fans do half of the deeds; one event in twenty is an older day's, and one request in twenty
    sends an earlier event again, be it acknowledged or not. The same `seed` makes the same events.
    """

    def __init__(
        self, system: System, account: str, *, rate: float = RATE, seed: int = 1, keep_alive: bool = True
    ) -> None:
        """`keep_alive`: over few connections that are kept, or over a new one for each request."""
        self.history = History(account, f"/chaos-{account}")
        self._system = system
        self._rate = rate
        self._headers = {"Content-Type": "application/json"} | ({} if keep_alive else {"Connection": "close"})
        self._random = random.Random(seed)
        self._number = 0
        self._users = 0
        self._recent: deque[Sent] = deque(maxlen=1000)
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._waiting: set[asyncio.Task[int]] = set()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._stopping = False
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> History:
        """Ends the timetable, waits for the answers that are due, and gives the memory of it all."""
        self._stopping = True
        if self._task is not None:
            await self._task
        while self._waiting:
            await asyncio.gather(*self._waiting)
        while self._free:
            self._free.pop().close()
        return self.history

    async def send(self, count: int) -> None:
        """`count` new events, each sent until it is acknowledged."""
        await self._send_all([self._make() for _ in range(count)])

    async def repeat(self) -> None:
        """Everything acknowledged so far, once more."""
        await self._send_all(list(self.history.acknowledged.values()))

    async def _send_all(self, events: Sequence[Sent]) -> None:
        """Several at a time, each until this attempt of it is acknowledged."""

        async def deliver(sent: Sent) -> None:
            while await self._send(sent, time.monotonic()) != 202:
                await asyncio.sleep(0.2)

        for start in range(0, len(events), TOGETHER):
            await asyncio.gather(*map(deliver, events[start : start + TOGETHER]))

    async def _run(self) -> None:
        started = time.monotonic()
        slot = 0
        while not self._stopping:
            due = started + slot / self._rate
            slot += 1
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            again = self._recent and self._random.random() < REPEATS
            sent = self._random.choice(self._recent) if again else self._make()
            task = asyncio.create_task(self._send(sent, due))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    def _make(self) -> Sent:
        draw = self._random
        kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "follow" or not self._users:
            kind, user = "follow", self._users
            self._users += 1
        else:
            user = int(self._users * draw.random() ** 4)
        time_ = datetime.now(UTC)
        if kind != "follow" and draw.random() < LATE:
            time_ -= timedelta(days=draw.randint(1, 20))
        number = self._number
        self._number += 1
        data = {
            "follow": {},
            "view": {"content_id": f"c{number % 50}", "watch_ms": 1000, "duration_ms": 5000},
            "like": {"content_id": f"c{number % 50}"},
            "comment": {"content_id": f"c{number % 50}", "comment_id": f"m{number}", "text": "好看"},
            "order.paid": {"order_id": f"o{number}", "amount_minor": 100, "currency": "CNY"},
        }[kind]
        event = {
            "id": f"{self.history.account}-{number}",
            "source": self.history.source,
            "type": kind,
            "subject": f"douyin:u{user}",
            "platform": "douyin",
            "time": time_,
            "data": data,
        }
        name, subject = str(event["id"]), str(event["subject"])
        sent = Sent(name, kind, subject, time_.astimezone(ZONE).date(), orjson.dumps(event))
        self._recent.append(sent)
        return sent

    async def _send(self, sent: Sent, due: float) -> int:
        async with self._slots:
            headers = self._system.authorization(self.history.account) | self._headers
            raw = request_bytes("/v1/events", sent.body, headers)
            try:
                connection = await self._connection()
            except OSError:
                status = FAILED
                await asyncio.sleep(0.05)
            else:
                status = await _ask(connection, raw)
                if status > HUNG:
                    self._free.append(connection)
        self.history.note(sent, due, status)
        return status

    async def _connection(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        return (await connect(self._system.url("ingest"), 1))[0]


async def _ask(connection: Connection, raw: bytes) -> int:
    try:
        async with asyncio.timeout(HUNG_SECONDS):
            return await connection.request(raw)
    except TimeoutError:
        connection.close()
        return HUNG
    except OSError:
        return FAILED
