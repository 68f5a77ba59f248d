"""Credentials for Kafka and PostgreSQL among the settings."""

import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from pydantic_settings import SettingsConfigDict

from libs.common.db import Database
from libs.common.kafka import Security
from libs.common.settings import DatabaseSettings, load_settings


class Settings(DatabaseSettings):
    model_config = SettingsConfigDict(env_prefix="SUPERFAN_PROFILE_")


def test_who_reaches_kafka_and_postgresql_with_credentials_needs_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, password, empty, none = (tmp_path / name for name in ("ca.crt", "password", "empty", "none"))
    trustme.CA().cert_pem.write_to_path(str(ca))
    password.write_text("hunter2\n")
    empty.touch()
    kafka, profile = "SUPERFAN_KAFKA", "SUPERFAN_PROFILE_PG"
    usual = {"SUPERFAN_CONFIG": "x.toml", kafka: "k:1", f"{profile}_URL": "postgresql://u@db/profile"}
    for name, value in usual.items():
        monkeypatch.setenv(name, value)
    good = {f"{kafka}_CA": ca, f"{kafka}_USER": "u", f"{kafka}_PASSWORD_FILE": password}
    good |= {f"{profile}_CA": ca, f"{profile}_PASSWORD_FILE": password}

    def load_with(**changes: object) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in {**good, **changes}.items():
                patch.setenv(name, str(value))
            return load_settings(Settings)

    settings = load_with()
    assert settings.security == Security(ca, "u", password)
    assert settings.database == Database("postgresql://u@db/profile", password, ca)

    for changes, line in (
        ({f"{kafka}_CA": ""}, f"{kafka}_USER needs {kafka}_CA: nobody logs in without TLS"),
        ({f"{kafka}_PASSWORD_FILE": ""}, f"{kafka}_USER and {kafka}_PASSWORD_FILE go together: set both or none"),
        ({f"{kafka}_USER": ""}, f"{kafka}_USER and {kafka}_PASSWORD_FILE go together: set both or none"),
        ({f"{kafka}_CA": none}, f"{kafka}_CA: {none} cannot be read: No such file or directory"),
        ({f"{kafka}_CA": password}, f"{kafka}_CA: {password} holds no certificate"),
        ({f"{kafka}_PASSWORD_FILE": none}, f"{kafka}_PASSWORD_FILE: {none} cannot be read: No such file or directory"),
        ({f"{profile}_CA": empty}, f"{profile}_CA: {empty} holds no certificate"),
        ({f"{profile}_PASSWORD_FILE": empty}, f"{profile}_PASSWORD_FILE: {empty} is empty"),
        (
            {f"{profile}_URL": "postgresql://u:hunter2@db/profile"},
            f"{profile}_URL has a password already: leave it out there, or {profile}_PASSWORD_FILE",
        ),
    ):
        with pytest.raises(SystemExit):
            load_with(**changes)
        assert capsys.readouterr().err == f"the settings are not complete:\n  {line}\n"


def test_ingest_does_not_pay_for_a_database() -> None:
    code = "import sys, services.ingest.main; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
