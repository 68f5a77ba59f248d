"""The call itself: a signed POST to an address that was looked at before it is connected to.

httpx is imported by the first channel: a worker without one does not pay for it.
"""

import asyncio
import ipaddress
import socket
from datetime import datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from libs.common import tracing
from libs.common.config import Channel
from services.engagement.usecases.sending import Answer

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
WHOLE_SECONDS = 20.0
TRANSLATED = [ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")]
"""IPv6 ranges behind which an IPv4 address hides."""


class ForbiddenAddressError(Exception):
    """The target is not where a message may go."""


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """Whether a message may go to this IP address: public ones; with `allow_private` also those of the own network,
    but never link-local ones, where clouds keep their credentials."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif not ip.is_loopback and any(ip in network for network in TRANSLATED):
            return False
    if ip.is_multicast or ip.is_unspecified or ip.is_link_local or (ip.is_reserved and not ip.is_loopback):
        return False
    return ip.is_global or (allow_private and (ip.is_private or ip.is_loopback))


async def find_address(host: str, port: int, *, allow_private: bool) -> str:
    """The IP address of `host` to connect to. Raises ForbiddenAddressError when any of its addresses is forbidden, and
    OSError when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    for address in addresses:
        if not is_allowed(address, allow_private=allow_private):
            raise ForbiddenAddressError(f"{host} is at {address}, which is not a public address")
    return addresses[0]


class Poster:
    """Posts the messages of one channel. No redirects, no proxies, no connection used twice: one that the receiver
    has closed meanwhile would look like a call without answer."""

    def __init__(self, channel: Channel) -> None:
        import httpx

        self.channel = channel
        self._signers = [Webhook(secret) for secret in channel.secrets]
        self._url = httpx.URL(channel.url)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, message_id: str, body: bytes, now: datetime, traceparent: str | None = None) -> Answer:
        """Send `body` under `message_id`, and tell how it ended. Never raises but for cancellation."""
        if tracing.tracer is None:
            return await self._post(message_id, body, now, traceparent)
        attributes: tracing.Attributes = {
            "http.request.method": "POST",
            "server.address": self._url.host,
            "server.port": self._port,
            "superfan.channel": self.channel.id,
        }
        with tracing.tracer.span("POST", "client", traceparent, attributes) as span:
            answer = await self._post(message_id, body, now, tracing.traceparent_of(span))
            if answer.outcome != "sent":
                tracing.tracer.fail(span, answer.outcome)
            return answer

    async def _post(self, message_id: str, body: bytes, now: datetime, traceparent: str | None) -> Answer:
        import httpx

        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                address = await find_address(self._url.host, self._port, allow_private=self.channel.allow_private)
        except (ForbiddenAddressError, OSError, UnicodeError) as error:  # a time-out is an OSError
            return Answer("failed", f"{type(error).__name__}: {error}"[:300])
        try:
            async with (
                asyncio.timeout(WHOLE_SECONDS),
                self._stream(address, message_id, body, now, traceparent) as response,
            ):
                status = response.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Answer("failed", f"{type(error).__name__}: {error}"[:300])
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return Answer("unknown", f"{type(error).__name__}: {error}"[:300])
        return Answer("sent") if 200 <= status < 300 else Answer("failed", f"HTTP {status}")

    @property
    def _port(self) -> int:
        return self._url.port or (443 if self._url.scheme == "https" else 80)

    def _stream(self, address: str, message_id: str, body: bytes, now: datetime, traceparent: str | None) -> Any:
        """To the address that was checked, whatever the name says a moment later; TLS still checks the name."""
        headers = {
            "Host": self._url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "superfan",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(message_id, now, body.decode()) for signer in self._signers),
        }
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return self._client.stream(
            "POST",
            self._url.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": self._url.host},
        )
