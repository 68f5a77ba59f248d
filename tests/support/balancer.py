"""A small load balancer in front of some processes, as a Kubernetes Service is one.

It balances TCP connections and knows nothing of requests: it never repeats one, and a connection stays with the back
end that it was opened to, also when that is not ready any more. Clients keep connections open, so a back end that stops
must see to it that nobody is still sending on them.
"""

import asyncio
from dataclasses import dataclass, field
from typing import cast

import httpx

POLL_SECONDS = 0.5


@dataclass
class _BackEnd:
    port: int
    readyz: str
    ready: bool = False
    connections: set["_End"] = field(default_factory=set)


class Balancer:
    """Round robin over the back ends of this machine whose /readyz answers 200; `port` is its own."""

    def __init__(self) -> None:
        self.port = 0
        self._back_ends: dict[str, _BackEnd] = {}
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._polling: asyncio.Task[None] | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(timeout=2)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Front(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Closes the port and every connection."""
        for task in (self._polling, *self._connecting):
            if task is not None:
                task.cancel()
        if self._server is not None:
            self._server.close()
        for name in list(self._back_ends):
            self.forget(name)
        await self._http.aclose()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> list[str]:
        """The back ends to which connections are opened."""
        return [name for name, back_end in self._back_ends.items() if back_end.ready]

    def add(self, name: str, port: int, readyz: str) -> None:
        """A back end that gets connections as soon as `readyz` (an address) answers 200."""
        self._back_ends[name] = _BackEnd(port, readyz)

    def remove(self, name: str) -> None:
        """Opens no more connections to it; those that are open stay."""
        self._back_ends[name].ready = False
        self._back_ends[name].readyz = ""

    def forget(self, name: str) -> None:
        """A back end that has ended."""
        for end in self._back_ends.pop(name).connections:
            end.close()

    def connect(self, front: "_Front") -> None:
        """Give a new connection the next back end; it is closed when there is none, or when nobody answers there."""
        ready = self.ready
        if not ready:
            front.close()
            return
        back_end = self._back_ends[ready[self._turn % len(ready)]]
        self._turn += 1
        task = asyncio.create_task(self._connect(front, back_end))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, front: "_Front", back_end: _BackEnd) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, back = await loop.create_connection(lambda: _End(front), "127.0.0.1", back_end.port)
        except OSError:
            front.close()
            return
        back.owner = back_end.connections
        back.owner.add(back)
        front.join(back)

    async def _poll(self) -> None:
        while True:
            await asyncio.gather(*(self._ask(back_end) for back_end in self._back_ends.values() if back_end.readyz))
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, back_end: _BackEnd) -> None:
        """One bad answer is enough; none in time changes nothing."""
        try:
            ready = (await self._http.get(back_end.readyz)).status_code == 200
        except httpx.TimeoutException:
            return
        except httpx.TransportError:
            ready = False
        back_end.ready = ready and bool(back_end.readyz)


class _End(asyncio.Protocol):
    """One end of a connection that is passed on; `peer` is the other one."""

    def __init__(self, peer: "_End | None" = None) -> None:
        self.peer = peer
        self.owner: set[_End] = set()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.discard(self)
        if self.peer is not None:
            self.peer.close()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def close(self) -> None:
        """What was passed on already still goes out."""
        if self.transport is not None:
            self.transport.close()


class _Front(_End):
    """The client's end: keeps what comes before there is a back end."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self._balancer = balancer
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._balancer.connect(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self._early.append(data)
        else:
            super().data_received(data)

    def join(self, back: _End) -> None:
        assert self.transport is not None
        assert back.transport is not None
        if self.transport.is_closing():
            back.close()
            return
        self.peer = back
        back.transport.writelines(self._early)
        self._early.clear()
