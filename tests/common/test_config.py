"""superfan.toml and the settings: all problems at once, nothing half applied, no secret shown."""

import asyncio
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import REGISTRY
from pydantic_settings import SettingsConfigDict

from libs.common.config import ConfigError, ConfigFile, UnknownAccountError, hash_key, load
from libs.common.settings import DatabaseSettings, ServiceSettings, load_settings

SOURCE = """
[[sources]]
id = "douyin-demo"
account = "demo"
platform = "douyin"
id_space = "douyin"
secret_files = ["secrets/new", "secrets/old"]
"""

GOOD = f"""
[accounts.demo]
zone = "Europe/Berlin"
currency = "EUR"
id_space = "shop"
sign_in_day = "account"

[accounts.plain-1]

[[keys]]
id = "dev"
account = "demo"
sha256 = "{hash_key("sf_dev_x")}"
scopes = ["events:write", "profile:read"]
trust = "client"
expires = 2027-01-01T00:00:00Z
{SOURCE}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets" / "new").write_text("n3w\n")
    (folder / "secrets" / "old").write_text("old")
    path = folder / "superfan.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> list[str]:
    """The lines of the ConfigError, without the first, which names the file."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    first, *lines = str(raised.value).split("\n")
    assert str(path) in first
    return [line.strip() for line in lines] or [first]


def test_everything_declared_is_read_and_the_rest_has_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    demo, plain = config.account("demo"), config.account("plain-1")
    assert (demo.zone, demo.currency, demo.id_space, demo.sign_in_day) == (
        ZoneInfo("Europe/Berlin"),
        "EUR",
        "shop",
        "account",
    )
    assert (plain.zone, plain.currency, plain.id_space, plain.sign_in_day) == (
        ZoneInfo("Asia/Shanghai"),
        "CNY",
        "plain-1",
        "user",
    )
    key = config.keys["dev"]
    assert (key.account, key.scopes, key.trust) == (
        "demo",
        frozenset({"events:write", "profile:read"}),
        "client",
    )
    assert key.expires is not None
    assert key.expires.year == 2027
    assert config.sources["douyin-demo"].secrets == ("n3w", "old")
    with pytest.raises(UnknownAccountError):
        config.account("nobody")


def test_an_empty_file_is_a_configuration_without_accounts(tmp_path: Path) -> None:
    assert dict(load(write(tmp_path, "")).accounts) == {}


def test_all_problems_are_told_at_once_by_the_entry_that_has_them(tmp_path: Path) -> None:
    lines = refusal(
        tmp_path,
        """
        colour = "red"
        [accounts.Demo]
        [accounts.demo]
        zone = "Mars/Olympus"
        currency = "euro"
        time_zone = "UTC"
        [[keys]]
        id = "dev"
        account = "demo"
        sha256 = "hunter2"
        scopes = ["profile:all"]
        expires = 2027-01-01T00:00:00
        [[keys]]
        id = "a_b"
        [[sources]]
        id = "s"
        account = "demo"
        platform = "douyin"
        id_space = "douyin"
        secret_files = ["a", "b", "c"]
        """,
    )
    starts = {line.partition(":")[0] for line in lines}
    assert starts == {
        "colour",
        "accounts Demo",
        "accounts demo zone",
        "accounts demo currency",
        "accounts demo time_zone",
        "keys dev sha256",
        "keys dev scopes 0",
        "keys dev expires",
        "keys a_b id",
        "keys a_b account",
        "keys a_b sha256",
        "keys a_b scopes",
        "sources s secret_files",
    }
    assert "accounts demo zone: 'Mars/Olympus' is not an IANA time zone" in lines
    assert "colour: is not a known setting" in lines
    assert "keys a_b account: is missing" in lines
    assert "hunter2" not in "\n".join(lines)


def test_entries_must_agree_with_one_another(tmp_path: Path) -> None:
    lines = refusal(tmp_path, GOOD.replace("[accounts.demo]", "[accounts.demo2]") + SOURCE.replace("/old", "/none"))
    assert lines == [
        "sources douyin-demo: declared twice",
        "keys dev: account 'demo' is not declared",
        "sources douyin-demo: account 'demo' is not declared",
        "sources douyin-demo: account 'demo' is not declared",
        "sources douyin-demo: secret file secrets/none cannot be read: No such file or directory",
    ]


def test_secret_files_must_hold_text(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "secrets" / "new").write_text("\n")
    (tmp_path / "secrets" / "old").write_bytes(b"\xff")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert "secret file secrets/new is empty" in str(raised.value)
    assert "secret file secrets/old is not UTF-8 text" in str(raised.value)


def test_a_file_that_is_absent_or_not_toml_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    assert "line 2" in refusal(tmp_path, "[accounts.demo]\nzone = \n")[0]
    (tmp_path / "superfan.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path / "superfan.toml")


def test_the_digest_covers_the_text_and_the_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    first = load(path).sha256
    assert load(path).sha256 == first
    (tmp_path / "secrets" / "old").write_text("changed")
    second = load(path).sha256
    path.write_text(GOOD + "# a comment\n")
    assert len({first, second, load(path).sha256}) == 3


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert "n3w" not in repr(config)
    assert hash_key("sf_dev_x") not in repr(config)


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_a_change_is_picked_up_and_an_invalid_file_keeps_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    file = ConfigFile(path, "polled")
    first = file.current.sha256
    assert metric("superfan_config_valid", service="polled") == 1
    assert metric("superfan_config_info", service="polled", sha256=first) == 1
    polling = asyncio.create_task(file.poll(interval=0.01))

    path.write_text("[accounts.demo\n")
    while metric("superfan_config_valid", service="polled") != 0:
        await asyncio.sleep(0.01)
    assert file.current.sha256 == first
    assert file.account("demo").currency == "EUR"

    path.write_text(GOOD.replace("EUR", "USD"))
    while metric("superfan_config_valid", service="polled") != 1:
        await asyncio.sleep(0.01)
    assert file.account("demo").currency == "USD"
    assert metric("superfan_config_info", service="polled", sha256=first) is None
    assert metric("superfan_config_info", service="polled", sha256=file.current.sha256) == 1

    (tmp_path / "secrets" / "new").write_text("rotated")
    while file.current.sources["douyin-demo"].secrets[0] != "rotated":
        await asyncio.sleep(0.01)
    polling.cancel()


def test_a_first_reading_that_is_invalid_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ConfigFile(write(tmp_path, "x = 1"), "test")


class Settings(DatabaseSettings):
    model_config = SettingsConfigDict(env_prefix="SUPERFAN_PROFILE_")


def test_settings_come_from_shared_and_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERFAN_CONFIG", "/etc/superfan/superfan.toml")
    monkeypatch.setenv("SUPERFAN_KAFKA", "k1:9092,k2:9092")
    monkeypatch.setenv("SUPERFAN_PROFILE_PG_URL", "postgresql://u:hunter2@db/profile")
    monkeypatch.setenv("SUPERFAN_PROFILE_HTTP_PORT", "18080")
    monkeypatch.setenv("SUPERFAN_PROFILE_DB_POOL", "")
    settings = load_settings(Settings)
    assert settings.config == Path("/etc/superfan/superfan.toml")
    assert (settings.kafka, settings.http_port, settings.metrics_port) == ("k1:9092,k2:9092", 18080, 9090)
    assert (settings.db_pool, settings.log_level, settings.log_format) == (8, "info", "json")
    assert settings.pg_url == "postgresql://u:hunter2@db/profile"
    assert "hunter2" not in repr(settings)


def test_settings_that_are_wrong_are_all_named_and_the_exit_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERFAN_LOG_LEVEL", "loud")
    monkeypatch.setenv("SUPERFAN_PROFILE_HTTP_PORT", "70000")
    monkeypatch.setenv("SUPERFAN_PROFILE_PG_URL", "mysql://u:hunter2@db/profile")
    with pytest.raises(SystemExit) as raised:
        load_settings(Settings)
    assert raised.value.code == 2
    errors = capsys.readouterr().err
    assert [line.strip().partition(":")[0] for line in errors.splitlines()[1:]] == [
        "SUPERFAN_CONFIG",
        "SUPERFAN_KAFKA",
        "SUPERFAN_LOG_LEVEL",
        "SUPERFAN_PROFILE_HTTP_PORT",
        "SUPERFAN_PROFILE_PG_URL",
    ]
    assert "SUPERFAN_CONFIG: is not set" in errors
    assert "hunter2" not in errors


def test_settings_of_a_service_can_be_given_in_code() -> None:
    class Ingest(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="SUPERFAN_INGEST_")

    settings = Ingest(config=Path("x.toml"), kafka="k:1", http_port=0)
    assert (settings.kafka, settings.http_port) == ("k:1", 0)


CHANNEL = """
[[channels]]
id = "sms-gateway"
account = "demo"
kind = "sms"
url = "https://gateway.example:8443/send?way=1"
secret_files = ["secrets/channel"]
idempotent = false
"""


def test_channels_belong_to_their_account(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "channel").write_text("whsec_" + "c2VjcmV0" * 4 + "\n")
    config = load(write(tmp_path, GOOD + CHANNEL))
    assert config.account("plain-1").channels == {}
    (channel,) = config.account("demo").channels.values()
    assert (channel.id, channel.account, channel.kind, channel.idempotent) == ("sms-gateway", "demo", "sms", False)
    assert channel.secrets == ("whsec_" + "c2VjcmV0" * 4,)
    assert "c2VjcmV0" not in repr(channel)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('"sms"', '"pigeon"', "channels sms-gateway kind: Input should be"),
        ('"https:', '"http:', "channels sms-gateway: url must begin with https://"),
        ('"https://gateway', '"ftp://gateway', "channels sms-gateway url: String should match"),
        ('"https://gateway', '"https://user@gateway', "channels sms-gateway url: String should match"),
        ('id = "sms-gateway"', 'id = "in-app"\nidle = 1', "channels in-app idle: is not a known setting"),
        ('"demo"', '"nobody"', "channels sms-gateway: account 'nobody' is not declared"),
        ('"secrets/channel"', '"secrets/none"', "channels sms-gateway: secret file secrets/none cannot be read"),
        ('"secrets/channel"', '"secrets/new"', "channels sms-gateway: secret "),
    ],
)
def test_channels_that_are_refused(tmp_path: Path, before: str, after: str, reason: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "channel").write_text("whsec_" + "c2VjcmV0" * 4)
    (found,) = refusal(tmp_path, GOOD + CHANNEL.replace(before, after))
    assert found.startswith(reason)


def test_a_private_channel_may_be_plain_http(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "channel").write_text("c2VjcmV0" * 4)
    text = CHANNEL.replace("https:", "http:") + "allow_private = true\n"
    assert load(write(tmp_path, GOOD + text)).account("demo").channels["sms-gateway"].allow_private
