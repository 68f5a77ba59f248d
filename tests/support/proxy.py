"""A TCP proxy that can hold back what passes through it, as a network that drops packets does."""

import asyncio
import contextlib


class Proxy:
    """Listens on a free port of loopback; `target` is the port to which it passes everything on.

    What is held back is not lost: it arrives when the network is well again, as TCP would send it again.
    """

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self.delay = 0.0
        """Seconds by which every chunk (64 KiB at most) is late, in both directions."""
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.heal()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def swallow(self) -> None:
        """A black hole: connections open, and nothing comes through in either direction."""
        self._requests.clear()
        self._answers.clear()

    def swallow_answers(self) -> None:
        """What clients send arrives; what they are answered does not."""
        self._answers.clear()

    def heal(self) -> None:
        """Pass on everything, at once."""
        self.delay = 0.0
        self._requests.set()
        self._answers.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer, self._requests)),
                asyncio.create_task(self._pump(far_reader, writer, self._answers)),
            ]
            try:
                # When one side ends, so does the other: half-open connections are of no use to Kafka.
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass  # nobody listens there, or the proxy closes
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await passing.wait()
                writer.write(data)
                await writer.drain()
