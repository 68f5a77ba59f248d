"""Custom resources are as their operators' releases define them, and a misspelt one would be noticed."""

from collections.abc import Callable
from copy import deepcopy

import pytest

from tests.manifests.crds import FOLDER, Kind, is_custom, kind_of, problems, schemas
from tests.manifests.tools import Manifest, render

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the schemas of the operators are not beside the project")


WITHOUT_SCHEMA = {("keda.sh/v1alpha1", "TriggerAuthentication")}
"""Checked by test_kafka_against_code instead."""


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render("overlays/prod")


def test_custom_resources_are_as_defined(everything: list[Manifest]) -> None:
    custom = [one for one in everything if is_custom(one)]
    found = {(kind_of(one), one["metadata"]["name"]): problems(one) for one in custom if kind_of(one) in schemas()}
    assert {name: refused for name, refused in found.items() if refused} == {}
    assert {kind_of(one) for one in custom} - schemas().keys() <= WITHOUT_SCHEMA
    assert {kind for kind, _ in found} >= set(SPOILED)


def _set(*path: str | int, to: object) -> Callable[[Manifest], None]:
    def spoil(manifest: Manifest) -> None:
        place = manifest
        for step in path[:-1]:
            place = place[step]  # type: ignore[index]
        place[path[-1]] = to  # type: ignore[index]

    return spoil


def _drop(key: str) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["spec"].pop(key)


SPOILED: dict[Kind, list[Callable[[Manifest], None]]] = {
    ("kafka.strimzi.io/v1", "Kafka"): [
        _set("spec", "kafka", "listeners", 0, "authentication", "type", to="scram-sha-256"),
        _set("spec", "kafka", "authorisation", to={"type": "simple"}),
        _set("spec", "zookeeper", to={}),
        _drop("kafka"),
    ],
    ("kafka.strimzi.io/v1", "KafkaNodePool"): [
        _set("spec", "roles", to=["broker", "leader"]),
        _set("spec", "storage", "volumes", 0, "deleteClaims", to=False),
        _set("spec", "replicas", to="3"),
    ],
    ("kafka.strimzi.io/v1", "KafkaTopic"): [_set("spec", "partition", to=12), _set("spec", "partitions", to="12")],
    ("kafka.strimzi.io/v1", "KafkaUser"): [
        _set("spec", "authorization", "acls", 0, "operation", to="Read"),
        _set("spec", "authorization", "acls", 0, "operations", to=["Reed"]),
        _set("spec", "authorization", "acls", 0, "resource", "patternType", to="glob"),
    ],
    ("postgresql.cnpg.io/v1", "Cluster"): [
        _set("spec", "postgresql", "synchronous", "dataDurability", to="sometimes"),
        _set("spec", "wallStorage", to={"size": "1Gi"}),
        _set("spec", "postgresql", "parameters", "max_connections", to=320),
        _drop("instances"),
    ],
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): [_set("spec", "method", to="dump"), _drop("schedule")],
    ("barmancloud.cnpg.io/v1", "ObjectStore"): [_set("spec", "configuration", "wal", "compression", to="rar")],
    ("keda.sh/v1alpha1", "ScaledObject"): [
        _set("spec", "maxReplicas", to=12),
        _set("spec", "triggers", 0, "metadata", "lagThreshold", to=10_000),
        _set("spec", "fallback", "behavior", to="hope"),
        _drop("scaleTargetRef"),
    ],
    ("monitoring.coreos.com/v1", "PrometheusRule"): [
        _set("spec", "groups", 0, "rules", 0, "expression", to="1"),
        _set("spec", "groups", 0, "rules", 0, "for", to="soon"),
    ],
    ("monitoring.coreos.com/v1", "ServiceMonitor"): [
        _set("spec", "endpoints", 0, "interval", to="often"),
        _drop("selector"),
    ],
    ("monitoring.coreos.com/v1", "PodMonitor"): [_set("spec", "podMetricsEndpoints", 0, "ports", to="metrics")],
}


@pytest.mark.parametrize(
    ("kind", "spoil"), [pytest.param(kind, spoil, id=kind[1]) for kind, spoils in SPOILED.items() for spoil in spoils]
)
def test_what_is_spoiled_is_refused(everything: list[Manifest], kind: Kind, spoil: Callable[[Manifest], None]) -> None:
    manifest = deepcopy(next(one for one in everything if kind_of(one) == kind))
    spoil(manifest)
    assert problems(manifest) != []
