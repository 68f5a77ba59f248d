"""deploy/compose.yaml against its schema and against the code; tests/image starts what it describes."""

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from pydantic_settings import BaseSettings

from libs.cli.local.jars import KAFKA_VERSION
from libs.cli.local.up import HTTP_PORTS
from libs.common import service
from libs.common.config import hash_key, load
from libs.common.settings import variable_name
from services.engagement.settings import Settings as EngagementSettings
from services.ingest.settings import Settings as IngestSettings
from services.profile.settings import Settings as ProfileSettings
from services.rewards.settings import Settings as RewardsSettings
from services.segmentation.settings import Settings as SegmentationSettings

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = FILE["services"]
SETTINGS: dict[str, type[BaseSettings]] = {
    "ingest": IngestSettings,
    "profile": ProfileSettings,
    "segmentation": SegmentationSettings,
    "engagement": EngagementSettings,
    "rewards": RewardsSettings,
}
WITH_DATABASE = tuple(SETTINGS)[1:]
OURS = {name: entry for name, entry in CONTAINERS.items() if entry["image"].startswith("superfan/")}


def service_of(entry: dict[str, Any]) -> str:
    """The service whose image a container runs."""
    return str(entry["image"].removeprefix("superfan/").partition(":")[0])


def variables(settings: type[BaseSettings]) -> dict[str, str]:
    """Environment variable → field."""
    return {variable_name(settings, field): field for field in settings.model_fields}


def test_it_fits_the_schema_of_compose_files() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema_rs.validator_for(schema)
    assert [error.message for error in validator.iter_errors(FILE)] == []
    misspelt = {**FILE, "services": {"kafka": {**CONTAINERS["kafka"], "read_onyl": True}}}
    assert list(validator.iter_errors(misspelt)), "the schema notices nothing"


def test_images_are_pinned_and_those_of_the_other_ways_to_run() -> None:
    version = re.search(r"^ARG VERSION=(.+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert version
    images = {entry["image"] for entry in CONTAINERS.values()}
    assert {image for image in images if image.startswith("superfan/")} == {
        f"superfan/{name}:{version[1]}" for name in SETTINGS
    }
    kafka, postgres = sorted(image for image in images if not image.startswith("superfan/"))
    assert kafka == f"apache/kafka:{KAFKA_VERSION}"
    assert re.fullmatch(r"postgres:\d+\.\d+-[a-z]+", postgres)
    for entry in OURS.values():
        args = {"SERVICE": service_of(entry)}
        assert entry["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile", "args": args}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_may_little(name: str) -> None:
    entry = CONTAINERS[name]
    assert entry["read_only"] is True
    assert entry["cap_drop"] == ["ALL"]
    assert entry["security_opt"] == ["no-new-privileges:true"]
    assert entry["mem_limit"]
    assert entry["pids_limit"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & entry.keys()
    assert not [key for key in entry["environment"] if re.search(r"PASSWORD|SECRET|TOKEN", key) and "FILE" not in key]
    assert all(port.startswith("127.0.0.1:") for port in entry.get("ports", [])), "nothing is open to the network"
    binds = [volume for volume in entry.get("volumes", []) if isinstance(volume, dict)]
    assert all(bind["read_only"] for bind in binds)


def test_each_service_listens_where_it_does_without_docker() -> None:
    for name, settings in SETTINGS.items():
        port = settings.model_fields["http_port"].default
        assert CONTAINERS[name]["ports"] == [f"127.0.0.1:{HTTP_PORTS[name]}:{port}"]
    assert {name for name, entry in CONTAINERS.items() if "ports" in entry} == set(SETTINGS)


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings_and_secrets_are_there(name: str) -> None:
    entry = OURS[name]
    known = variables(SETTINGS[service_of(entry)])
    assert set(entry["environment"]) <= set(known)
    needed = {variable for variable, field in known.items() if field in ("config", "kafka", "pg_url")}
    assert name == "topics" or needed <= set(entry["environment"]), "each has all it needs"
    asked = {value for variable, value in entry["environment"].items() if variable.endswith("_FILE")}
    assert asked == {f"/run/secrets/{secret}" for secret in entry.get("secrets", [])}
    if name in SETTINGS:
        (bind,) = [volume for volume in entry["volumes"] if isinstance(volume, dict)]
        assert Path(entry["environment"]["SUPERFAN_CONFIG"]).parent == Path(bind["target"])
        assert int(entry["stop_grace_period"].removesuffix("s")) > service.STOP_SECONDS


def test_the_order_of_a_start() -> None:
    done = {"condition": "service_completed_successfully"}
    for name in SETTINGS:
        waits = {"topics": done} | ({f"{name}-migrate": done} if name in WITH_DATABASE else {})
        assert CONTAINERS[name]["depends_on"] == waits
        assert CONTAINERS[name]["command"] == (["all"] if name in WITH_DATABASE else ["api"])
    for name in WITH_DATABASE:
        assert CONTAINERS[f"{name}-migrate"]["command"] == ["migrate"]
        assert CONTAINERS[f"{name}-migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert CONTAINERS["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert all("healthcheck" in CONTAINERS[name] for name in ("kafka", "postgres"))
    assert [name for name, entry in CONTAINERS.items() if entry["restart"] == "no"] == [
        "topics",
        *(f"{name}-migrate" for name in WITH_DATABASE),
    ]


def test_what_must_outlive_a_container_lies_in_a_volume() -> None:
    kept = {
        name: [volume for volume in entry.get("volumes", []) if isinstance(volume, str)]
        for name, entry in CONTAINERS.items()
    }
    spool = re.search(r"SUPERFAN_INGEST_SPOOL=(\S+)", (ROOT / "deploy" / "Dockerfile").read_text())
    assert spool
    assert {name: volumes for name, volumes in kept.items() if volumes} == {
        "kafka": [f"kafka:{CONTAINERS['kafka']['environment']['KAFKA_LOG_DIRS']}"],
        "postgres": ["postgres:/var/lib/postgresql/data"],
        "ingest": [f"spool:{spool[1]}"],
    }
    assert set(FILE["volumes"]) == {"kafka", "postgres", "spool"}


def test_prepare_makes_all_that_is_mounted_and_keeps_it(tmp_path: Path) -> None:
    def prepare() -> dict[str, str]:
        subprocess.run(["sh", str(ROOT / "deploy/compose/prepare.sh"), str(tmp_path)], check=True, capture_output=True)
        return {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}

    made = prepare()
    assert prepare() == made
    for secret in FILE["secrets"].values():
        assert secret["file"].removeprefix("./compose/state/") in made
    passwords = [text for name, text in made.items() if name.startswith("passwords/")]
    assert len(set(passwords)) == len(passwords) == 1 + len(WITH_DATABASE)
    assert all(re.fullmatch(r"[\w-]{32}\n", text) for text in passwords)
    config = load(tmp_path / "config" / "superfan.toml")
    assert config.keys["dev"].sha256 == hash_key(made["api-key"].strip())
    assert set(config.sources) == {"douyin-demo", "standard-demo"}
    assert tmp_path.stat().st_mode & 0o77 == 0, "closed to other users"
    assert (tmp_path / "config" / "superfan.toml").stat().st_mode & 0o4, "containers run as other users"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deploy/compose/state/" in ignored
