"""Standard Webhooks 1.0: signed deliveries of the sender's own events, to be read like those of `POST /v1/events`."""

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from services.ingest.platforms.adapter import Confidence, Rejection

TITLE = "Standard Webhooks"
CONFIDENCE: Confidence = "official vector"
TOLERANCE = timedelta(minutes=5)
"""Senders sign each attempt anew, so an older one is a replay."""

_ID = re.compile(r"[\x21-\x7e]{1,180}")
_SECONDS = re.compile(r"[0-9]{1,11}")


class Signed(NamedTuple):
    """A delivery with a good signature. `webhook_id` stays the same over its retries."""

    webhook_id: str


def verify(headers: Mapping[str, str], body: bytes, secrets: tuple[str, ...], now: datetime) -> Signed | Rejection:
    """Check the three `webhook-…` headers (names in lower case) against the raw `body`; either secret will do."""
    webhook_id = headers.get("webhook-id", "")
    seconds = headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not (webhook_id and seconds and signatures):
        return Rejection("signature", "Send the headers webhook-id, webhook-timestamp and webhook-signature.")
    if not _ID.fullmatch(webhook_id):
        return Rejection("signature", "webhook-id must be 1 to 180 visible ASCII characters.")
    if not _SECONDS.fullmatch(seconds):
        return Rejection("timestamp", "webhook-timestamp must be seconds since 1970.")
    sent = datetime.fromtimestamp(int(seconds), UTC)
    if abs(now - sent) > TOLERANCE:
        return Rejection("timestamp", "webhook-timestamp is more than 5 minutes from now.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Rejection("malformed", "The body is not UTF-8.", 400)
    given = [
        value.encode() for version, _, value in (part.partition(",") for part in signatures.split()) if version == "v1"
    ]
    for secret in secrets:
        webhook = _webhook(secret)
        if webhook is None:
            continue
        expected = _signature(webhook, webhook_id, sent, text)
        if any(hmac.compare_digest(expected, value) for value in given):
            return Signed(webhook_id)
    return Rejection("signature", "The signature is not valid.")


def sign(body: bytes, secret: str, webhook_id: str, at: datetime) -> dict[str, str]:
    """The headers with which a sender delivers `body`. `secret` is `whsec_` and base64."""
    signature = _signature(Webhook(secret), webhook_id, at, body.decode()).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": f"v1,{signature}",
    }


def is_usable(secret: str) -> bool:
    """Whether `secret` can be a secret of this scheme at all: `whsec_` and base64."""
    return _webhook(secret) is not None


@lru_cache(maxsize=256)
def _webhook(secret: str) -> Webhook | None:
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        return None


def _signature(webhook: Webhook, webhook_id: str, at: datetime, text: str) -> bytes:
    return webhook.sign(webhook_id, at.astimezone(UTC), text).removeprefix("v1,").encode()
