"""Pods as the code sees them: each container's files are laid out as Kubernetes would, then its settings, roles, ports
and configuration are read by the services' own code. (Topics, Kafka's users and databases have tests of their own.)"""

import copy
import importlib
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from libs.common.config import ConfigError, load
from libs.common.health import Health
from libs.common.roles import parse_role
from libs.common.settings import DatabaseSettings, ServiceSettings, variable_name
from libs.common.version import VERSION
from services.ingest.main import ROLES as INGEST_ROLES
from services.ingest.main import source_problems
from services.ingest.settings import Settings as IngestSettings
from tests.manifests.tools import (
    CONSUMERS,
    K8S,
    SERVICES,
    Manifest,
    containers,
    environment,
    named,
    of_kind,
    place,
    pod_spec,
    render,
    workloads,
)

OVERLAYS = ("overlays/prod", "overlays/dev")
ROLES = [
    f"{overlay.rpartition('/')[2]}: {item['metadata']['name']}, {container['name']}"
    for overlay in OVERLAYS
    for item in workloads(render(overlay))
    for container in containers(item)
]


@dataclass(frozen=True)
class Pod:
    """One container of a workload, and the manifests that it comes from."""

    manifests: list[Manifest]
    workload: Manifest
    container: Manifest

    @property
    def service(self) -> str:
        return str(self.workload["metadata"]["labels"]["app.kubernetes.io/name"])

    @property
    def settings_type(self) -> type[ServiceSettings]:
        settings: type[ServiceSettings] = importlib.import_module(f"services.{self.service}.settings").Settings
        return settings

    @property
    def role(self) -> str:
        return str(self.container["args"][0])

    def variables(self) -> dict[str, str]:
        return environment(self.manifests, self.container)

    def settings(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
        """The settings as the service loads them, with `root` in front of every path that is mounted."""
        self._lay_out(root)
        folders = [mount["mountPath"] for mount in self.container["volumeMounts"]]
        for name, value in self.variables().items():
            mounted = any(value.startswith(f"{folder}/") or value == folder for folder in folders)
            monkeypatch.setenv(name, f"{root}{value}" if mounted else value)
        return self.settings_type()

    def _lay_out(self, root: Path) -> None:
        claims = self.workload["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"]: volume for volume in pod_spec(self.workload)["volumes"]}
        volumes |= {claim["metadata"]["name"]: {} for claim in claims}
        for mount in self.container["volumeMounts"]:
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True)
            volume = volumes[mount["name"]]
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                for name, content in self._files(source).items():
                    (folder / name).write_text(content)

    def _files(self, source: Manifest) -> dict[str, str]:
        """What a ConfigMap has, or what the operators and people put into a Secret."""
        if "configMap" in source:
            data: dict[str, str] = named(self.manifests, "ConfigMap", source["configMap"]["name"])["data"]
            return data
        if "secret" not in source:
            return {}
        secret = source["secret"].get("secretName") or source["secret"]["name"]
        if secret == "superfan-secrets":
            return dict.fromkeys(_named_secrets(self.manifests), "one of its owner's secrets")
        content = {"ca.crt": CERTIFICATE, "password": "p4ss", "uri": "postgresql://…", "sasl.jaas.config": "…"}
        return {item["path"]: content[item["key"]] for item in source["secret"].get("items", [])}


CERTIFICATE = trustme.CA().cert_pem.bytes().decode()


@pytest.fixture
def pod(request: pytest.FixtureRequest) -> Pod:
    overlay, workload, container = re.split(": |, ", request.param)
    manifests = render(f"overlays/{overlay}")
    item = next(item for item in workloads(manifests) if item["metadata"]["name"] == workload)
    return Pod(manifests, item, next(one for one in containers(item) if one["name"] == container))


def _named_secrets(manifests: list[Manifest]) -> list[str]:
    file = tomllib.loads(named(manifests, "ConfigMap", "superfan-config")["data"]["superfan.toml"])
    return [name for entry in [*file.get("sources", []), *file.get("channels", [])] for name in entry["secret_files"]]


@pytest.mark.parametrize("pod", ROLES, indirect=True)
def test_the_settings_load_and_files_lie_where_they_say(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pod.settings(tmp_path, monkeypatch)
    ports = {port["name"]: port["containerPort"] for port in pod.container.get("ports", [])}
    if "metrics" in ports:  # a container that serves: its configuration, its addresses
        config = load(settings.config)
        assert config.accounts
        assert source_problems(config) == []
        assert settings.http_host == "0.0.0.0"
        assert ports["metrics"] == settings.metrics_port
        assert ports.get("http", settings.http_port) == settings.http_port
        assert ("http" in ports) == (pod.role == "api")
    if isinstance(settings, DatabaseSettings):
        assert settings.pg_ca is not None
        assert settings.pg_password_file is not None
    if pod.service == "ingest" or pod.role == "worker":
        assert settings.kafka_ca is not None
        assert settings.kafka_user == f"kafka-{pod.service}"
    else:
        assert settings.kafka_user is None, "an API or a migration has no business with Kafka"


@pytest.mark.parametrize("pod", ROLES, indirect=True)
def test_every_variable_is_a_setting(pod: Pod) -> None:
    """A misspelt one would be passed over in silence."""
    known = {variable_name(pod.settings_type, name) for name in pod.settings_type.model_fields}
    assert {name for name in pod.variables() if not name.startswith("OTEL_")} <= known


@pytest.mark.parametrize("pod", ROLES, indirect=True)
def test_roles_are_those_of_the_code(pod: Pod) -> None:
    arguments = pod.container["args"]
    if pod.service == "ingest":
        assert arguments == ["api"]
        assert "api" in INGEST_ROLES
        return
    topics = importlib.import_module(f"services.{pod.service}.main").SERVICE.topics
    role = parse_role(arguments, topics)
    assert role is not None, f"{arguments} is no role"
    component = pod.workload["metadata"]["labels"]["app.kubernetes.io/component"]
    waits = pod.container["name"] == "wait-for-schema"
    assert role.name == ("migrate" if waits else component.partition("-")[0])
    assert role.wait == waits


@pytest.mark.parametrize("pod", ROLES, indirect=True)
def test_images_are_built_by_the_dockerfile(pod: Pod) -> None:
    """Its argument SERVICE is the name of a folder below services/; its tag is the version of this code."""
    name, _, tag = pod.container["image"].partition(":")
    assert name == f"superfan/{pod.service}"
    assert (K8S.parents[1] / "services" / pod.service / "__main__.py").exists()
    assert tag == VERSION
    dockerfile = (K8S.parent / "Dockerfile").read_text()
    user = pod_spec(pod.workload)["securityContext"]["runAsUser"]
    assert re.search(rf"^USER {user}(:|$)", dockerfile, re.MULTILINE), "the image and the pod name different users"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_is_answered(overlay: str) -> None:
    answered = {getattr(route, "path", "") for route in Health("test").app().routes}
    asked = {
        (kind, container[kind]["httpGet"]["path"])
        for item in of_kind(render(overlay), "Deployment", "StatefulSet")
        for container in pod_spec(item)["containers"]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")}
    assert {path for _, path in asked} <= answered


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_spool_lies_on_its_disk_and_fits_twice(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(overlay)
    ingest = named(manifests, "StatefulSet", "ingest")
    pod = Pod(manifests, ingest, pod_spec(ingest)["containers"][0])
    settings = pod.settings(tmp_path, monkeypatch)
    assert isinstance(settings, IngestSettings)
    claim = ingest["spec"]["volumeClaimTemplates"][0]
    mount = next(one for one in pod.container["volumeMounts"] if one["name"] == claim["metadata"]["name"])
    assert str(settings.spool) == f"{tmp_path}{mount['mountPath']}"
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert size.endswith("Gi")
    assert 2 * settings.spool_bytes <= int(size.removesuffix("Gi")) << 30


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_holds_no_secret(overlay: str) -> None:
    """Keys of the sample have a sum that no text has, so a copy that was not filled in lets nobody in."""
    file = tomllib.loads(named(render(overlay), "ConfigMap", "superfan-config")["data"]["superfan.toml"])
    assert {key["sha256"] for key in file["keys"]} == {"0" * 64}
    assert not of_kind(render(overlay), "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_changed_configuration_needs_no_new_pods(overlay: str) -> None:
    """Same names for ever, no listed items: what is added to the ConfigMap or the Secret appears in running pods."""
    for item in of_kind(workloads(render(overlay)), "Deployment", "StatefulSet"):
        volume = next(volume for volume in pod_spec(item)["volumes"] if volume["name"] == "config")
        sources = volume["projected"]["sources"]
        assert sources == [
            {"configMap": {"name": "superfan-config"}},
            {"secret": {"name": "superfan-secrets", "optional": True}},
        ], place(item)


def test_every_service_is_deployed() -> None:
    folder = K8S.parents[1] / "services"
    assert {path.parent.name for path in folder.glob("*/__main__.py")} == set(SERVICES)
    names = {item["metadata"]["name"] for item in of_kind(render("overlays/prod"), "Deployment", "StatefulSet", "Job")}
    for service in CONSUMERS:
        assert {f"{service}-api", f"{service}-worker", f"{service}-migrate"} <= names
    assert "ingest" in names


def _spec(manifests: list[Manifest]) -> Any:
    return pod_spec(named(manifests, "Deployment", "profile-worker"))


def _app(manifests: list[Manifest]) -> Any:
    return _spec(manifests)["containers"][0]


def _settings_of(manifests: list[Manifest]) -> Any:
    return next(
        item["data"] for item in of_kind(manifests, "ConfigMap") if item["metadata"]["name"].startswith("profile-env-")
    )


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda m: _settings_of(m).pop("SUPERFAN_PROFILE_PG_URL"), id="a setting that is missing"),
        pytest.param(lambda m: _settings_of(m).update(SUPERFAN_PROFILE_PGPOOL="8"), id="a misspelt setting"),
        pytest.param(
            lambda m: _settings_of(m).update(SUPERFAN_PROFILE_PG_CA="/run/secrets/postgres/ca.crt"),
            id="a certificate where none is",
        ),
        pytest.param(
            lambda m: _settings_of(m).update(SUPERFAN_PROFILE_HTTP_HOST="127.0.0.1"), id="metrics for nobody else"
        ),
        pytest.param(
            lambda m: _app(m)["env"].remove(
                {"name": "SUPERFAN_KAFKA_PASSWORD_FILE", "value": "/run/secrets/kafka/password"}
            ),
            id="a Kafka user without its password",
        ),
        pytest.param(
            lambda m: next(one for one in _app(m)["ports"] if one["name"] == "metrics").update(containerPort=9091),
            id="another port",
        ),
        pytest.param(
            lambda m: next(one for one in _app(m)["volumeMounts"] if one["name"] == "config").update(
                mountPath="/etc/fans"
            ),
            id="the configuration elsewhere",
        ),
        pytest.param(
            lambda m: named(m, "ConfigMap", "superfan-config")["data"].update({"superfan.toml": "[[keys]]"}),
            id="a configuration that cannot be used",
        ),
        pytest.param(lambda m: _app(m).update(args=["consume"]), id="a role that is not there"),
        pytest.param(
            lambda m: _app(m).update(args=["worker", "--topics", "profiles"]), id="a topic that is not its own"
        ),
        pytest.param(lambda m: _app(m).update(image="superfan/rewards:0.2.0"), id="another service's image"),
        pytest.param(lambda m: _spec(m)["securityContext"].update(runAsUser=10002), id="a user that owns no file"),
    ],
)
def test_a_mistake_is_noticed(
    spoil: Callable[[list[Manifest]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = copy.deepcopy(render("overlays/prod"))
    spoil(manifests)
    worker = named(manifests, "Deployment", "profile-worker")
    pod = Pod(manifests, worker, pod_spec(worker)["containers"][0])
    with pytest.raises((AssertionError, ValueError, ConfigError)):
        _check_all(pod, tmp_path, monkeypatch)


def test_without_a_mistake_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = named(render("overlays/prod"), "Deployment", "profile-worker")
    _check_all(Pod(render("overlays/prod"), worker, pod_spec(worker)["containers"][0]), tmp_path, monkeypatch)


def _check_all(pod: Pod, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_every_variable_is_a_setting(pod)
    test_roles_are_those_of_the_code(pod)
    test_images_are_built_by_the_dockerfile(pod)
    test_the_settings_load_and_files_lie_where_they_say(pod, root, monkeypatch)
