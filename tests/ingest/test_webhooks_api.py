"""POST and GET /v1/webhooks/{source}, on a real broker."""

from datetime import UTC, datetime

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY

from libs.common.config import ConfigFile
from services.ingest.main import source_problems
from services.ingest.platforms import douyin_signer
from tests.ingest.conftest import DOUYIN_OLD_SECRET, DOUYIN_SECRET, KEY, Published, serving

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


async def deliver(api: httpx.AsyncClient, body: bytes, secret: str = DOUYIN_SECRET) -> httpx.Response:
    return await api.post("/v1/webhooks/douyin-demo", content=body, headers=douyin_signer.sign(body, secret))


def counted(outcome: str, reason: str = "") -> float:
    labels = {"service": "ingest", "platform": "douyin", "outcome": outcome, "reason": reason}
    return REGISTRY.get_sample_value("superfan_webhooks_total", labels) or 0


async def test_a_wrong_signature_is_401_and_no_key_helps(api: httpx.AsyncClient, published: Published) -> None:
    body = douyin_signer.follow("ou_1", AT)
    before = counted("rejected", "signature")
    assert (await deliver(api, body, "wrong")).json()["code"] == "bad_signature"
    response = await api.post("/v1/webhooks/douyin-demo", content=body, headers={"Authorization": f"Bearer {KEY}"})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert counted("rejected", "signature") == before + 2
    assert await published() == []


@pytest.mark.parametrize("secret", [DOUYIN_SECRET, DOUYIN_OLD_SECRET])
async def test_a_signed_follow_is_published(api: httpx.AsyncClient, published: Published, secret: str) -> None:
    before = counted("accepted")
    response = await deliver(api, douyin_signer.follow("ou_1", AT), secret)
    assert response.status_code == 200
    assert (response.json()["accepted"], response.json()["ignored"]) == (1, [])
    [(topic, key, event)] = await published()
    assert (topic, key) == ("superfan.follows", b"demo/douyin:ou_1")
    assert event["id"] == response.json()["results"][0]["id"]
    assert (event["source"], event["platform"], event["trust"]) == ("/douyin-demo", "douyin", "platform")
    assert event["time"] == "2026-03-01T09:00:00Z"
    assert counted("accepted") == before + 1


async def test_a_retry_is_the_same_event(api: httpx.AsyncClient, published: Published) -> None:
    body = douyin_signer.comment("ou_1", "item", "c-1", "好", AT)
    for _ in range(2):
        assert (await deliver(api, body)).status_code == 200
    assert len({(event["source"], event["id"]) for _, _, event in await published()}) == 1


@pytest.mark.parametrize("secret", [DOUYIN_SECRET, "wrong"])
async def test_a_challenge_is_echoed_and_publishes_nothing(
    api: httpx.AsyncClient, published: Published, secret: str
) -> None:
    response = await deliver(api, douyin_signer.challenge(12345), secret)
    assert (response.status_code, response.json()) == (200, {"challenge": 12345})
    assert await published() == []


async def test_an_unknown_kind_is_acknowledged_and_counted(api: httpx.AsyncClient, published: Published) -> None:
    before = counted("ignored", "unknown_kind")
    response = await deliver(api, orjson.dumps({"event": "enter_im", "content": {}}))
    assert (response.status_code, response.json()["ignored"]) == (200, ["enter_im"])
    assert counted("ignored", "unknown_kind") == before + 1
    assert await published() == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (orjson.dumps({"event": "new_follow_action", "content": '{"action_type":1}'}), "/subject"),
        (
            rb'{"event":"item_comment_reply","from_user_id":"o","content":{"comment_id":"c","content":"a\u0000b"}}',
            "/content/content",
        ),
    ],
)
async def test_what_cannot_be_used_is_acknowledged_and_kept_masked(
    api: httpx.AsyncClient, published: Published, body: bytes, pointer: str
) -> None:
    response = await deliver(api, body)
    assert response.status_code == 200
    assert response.json()["invalid"] == 1
    [(topic, key, kept)] = await published()
    assert (topic, key) == ("superfan.rejected", b"demo")
    assert kept["sender"] == "/douyin-demo"
    assert [error["pointer"] for error in kept["errors"]] == [pointer]


async def test_a_signed_body_that_is_no_json_is_400(api: httpx.AsyncClient) -> None:
    response = await deliver(api, b'{"event": "new_follow_action"}\x80')
    assert (response.status_code, response.json()["code"]) == (400, "malformed_webhook")


async def test_more_than_64_kib_are_413(api: httpx.AsyncClient) -> None:
    body = douyin_signer.comment("ou_1", "item", "c-1", "x" * 70_000, AT)
    assert (await deliver(api, body)).status_code == 413


async def test_unknown_sources_are_404(api: httpx.AsyncClient) -> None:
    for method, source in (("POST", "unknown"), ("GET", "unknown"), ("GET", "douyin-demo"), ("POST", "nowhere")):
        response = await api.request(method, f"/v1/webhooks/{source}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), source


async def test_without_kafka_and_with_a_full_spool_the_platform_is_asked_to_come_again(config: ConfigFile) -> None:
    async with serving(config, "127.0.0.1:1", ack_seconds=0.8, spool_bytes=700) as api:
        assert (await deliver(api, douyin_signer.follow("ou_1", AT))).status_code == 200
        response = await deliver(api, douyin_signer.follow("ou_2", AT))
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert (await deliver(api, douyin_signer.challenge(1))).status_code == 200


def test_sources_that_cannot_work_are_told_at_start(config: ConfigFile) -> None:
    assert source_problems(config.current) == ["nowhere: no adapter for platform nosuch; there are standard, douyin"]


async def test_a_source_with_a_rate_is_429_beyond_it(api: httpx.AsyncClient, config: ConfigFile) -> None:
    text = config.path.read_text()
    config.path.write_text(text.replace('id_space = "douyin"\n', 'id_space = "douyin"\nrate_per_second = 0.01\n', 1))
    config.reload()
    body = douyin_signer.follow("ou_1", AT)
    before = counted("refused", "rate_limited")
    try:
        assert (await deliver(api, body, "wrong")).status_code == 401  # counts towards nobody's rate
        first = await deliver(api, body)
        assert (first.status_code, first.headers["ratelimit-policy"]) == (200, '"default";q=1;w=100')
        late = await deliver(api, body)
        assert (late.status_code, late.json()["code"]) == (429, "rate_limited")
        assert 0 < int(late.headers["retry-after"]) <= 100
        assert counted("refused", "rate_limited") == before + 1
    finally:
        config.path.write_text(text)
        config.reload()
    assert "ratelimit" not in (await deliver(api, body)).headers
