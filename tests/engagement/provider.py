"""A message provider: a real HTTP server on this machine that answers, or does not, as it is told."""

import asyncio
from typing import Literal

from libs.common.config import Channel
from tests.engagement.support import CHANNEL_SECRET

Manner = Literal["ok", "refuse", "redirect", "hang", "cut"]


class Provider:
    """An HTTP server that keeps what it was sent, and answers as it is told."""

    def __init__(self) -> None:
        self.manner: Manner = "ok"
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.got.append((headers, body))
            if self.manner == "hang":
                await reader.read()  # until the caller gives up
            elif self.manner != "cut":
                line = {"ok": "204 No Content", "refuse": "500 Oh", "redirect": "302 Found\r\nLocation: /there"}
                writer.write(f"HTTP/1.1 {line[self.manner]}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        finally:
            writer.close()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def channel(self, name: str = "gateway", *, idempotent: bool = True) -> Channel:
        url = f"http://127.0.0.1:{self.port}/send?x=1"
        return Channel(name, "demo", "webhook", url, (CHANNEL_SECRET,), idempotent, allow_private=True)
