"""Database clusters are what the services' settings expect, and take as many connections as all pods may open."""

import importlib
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.manifests.tools import CONSUMERS, Manifest, named, of_kind, render

RESERVED = 20
"""Connections for superusers, the operator's checks, a migration and a person with psql."""


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render("overlays/prod")


@pytest.fixture(scope="module")
def clusters(everything: list[Manifest]) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in of_kind(everything, "Cluster")}


def test_each_service_has_a_cluster_of_its_own(clusters: dict[str, dict[str, Any]]) -> None:
    assert clusters.keys() == {f"{service}-db" for service in CONSUMERS}
    for service in CONSUMERS:
        spec = clusters[f"{service}-db"]
        assert spec["instances"] == 3
        assert spec["imageCatalogRef"]["major"] >= 15
        initdb = spec["bootstrap"]["initdb"]
        assert (initdb["database"], initdb["owner"], initdb["encoding"]) == (service, service, "UTF8")
        assert spec["storage"]["size"]
        assert spec["walStorage"]["size"]


def test_money_is_on_two_nodes_before_it_is_answered(clusters: dict[str, dict[str, Any]]) -> None:
    found = {name: spec["postgresql"]["synchronous"] for name, spec in clusters.items()}
    assert {(one["method"], one["number"]) for one in found.values()} == {("any", 1)}
    required = {name for name, one in found.items() if one["dataDurability"] == "required"}
    assert required == {"rewards-db"}


def test_each_cluster_is_archived_and_backed_up_daily(
    clusters: dict[str, dict[str, Any]], everything: list[Manifest]
) -> None:
    [store] = of_kind(everything, "ObjectStore")
    backups = {one["spec"]["cluster"]["name"]: one["spec"] for one in of_kind(everything, "ScheduledBackup")}
    assert backups.keys() == clusters.keys()
    for name, spec in clusters.items():
        [plugin] = [one for one in spec["plugins"] if one["isWALArchiver"]]
        assert plugin["parameters"] == {"barmanObjectName": store["metadata"]["name"]}
        assert backups[name]["pluginConfiguration"]["name"] == plugin["name"]
        seconds, minutes, hours, *rest = backups[name]["schedule"].split()
        assert (seconds, rest) == ("0", ["*", "*", "*"])
        assert minutes.isdigit()
        assert hours.isdigit()


@pytest.mark.parametrize("service", CONSUMERS)
def test_all_pods_find_a_connection(
    clusters: dict[str, dict[str, Any]], everything: list[Manifest], service: str
) -> None:
    most = 0
    for deployment in of_kind(everything, "Deployment"):
        template = deployment["spec"]["template"]
        if template["metadata"]["labels"]["app.kubernetes.io/name"] == service:
            # Each new pod waits for the schema with one connection, before its pool opens.
            most += _most_pods(everything, deployment) * _pool(everything, service, template["spec"])
    limit = int(clusters[f"{service}-db"]["postgresql"]["parameters"]["max_connections"])
    assert 0 < most <= limit - RESERVED


def _most_pods(manifests: list[Manifest], deployment: Manifest) -> int:
    name = deployment["metadata"]["name"]
    limits = [
        one["spec"].get("maxReplicas") or one["spec"]["maxReplicaCount"]
        for one in manifests
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") and one["spec"]["scaleTargetRef"]["name"] == name
    ]
    [limit] = limits
    surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    assert isinstance(surge, int)
    return int(limit) + surge


def _pool(manifests: list[Manifest], service: str, pod: dict[str, Any]) -> int:
    """The size of a process's pool: by its environment, else the default."""
    variable = f"SUPERFAN_{service.upper()}_DB_POOL"
    [container] = pod["containers"]
    given = {one["name"]: one.get("value") for one in container.get("env", [])}
    for source in container.get("envFrom", []):
        data = named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
        given = {**data, **given}
    settings = importlib.import_module(f"services.{service}.settings").Settings
    return int(given.get(variable) or settings.model_fields["db_pool"].default)


def test_addresses_are_those_of_the_clusters(clusters: dict[str, dict[str, Any]], everything: list[Manifest]) -> None:
    urls = {
        value
        for one in of_kind(everything, "ConfigMap")
        for name, value in one["data"].items()
        if name.endswith("_PG_URL")
    }
    parts = [urlsplit(url) for url in urls]
    assert sorted((part.hostname, part.username, part.path) for part in parts) == sorted(
        (f"{service}-db-rw", service, f"/{service}") for service in CONSUMERS
    )
