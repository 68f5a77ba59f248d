"""Every kustomization can be built, alone, and says nothing twice."""

import collections
import json
import re
from typing import Any

import pytest

from tests.manifests.tools import CONSUMERS, K8S, SERVICES, Manifest, render, render_component

FOLDERS = sorted(str(path.parent.relative_to(K8S)) for path in K8S.glob("[bo]*/**/kustomization.yaml"))
BUILT = [folder for folder in FOLDERS if folder != "base/common"]
COMPONENTS = sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))


def test_all_services_and_overlays_are_looked_at() -> None:
    expected = {"base", "base/namespace", "overlays/dev", "overlays/prod", *(f"base/{name}" for name in SERVICES)}
    assert set(BUILT) == expected
    assert set(COMPONENTS) == {"cnpg", "keda", "monitoring", "strimzi"}


@pytest.mark.parametrize("folder", BUILT)
def test_each_folder_renders_and_says_nothing_twice(folder: str) -> None:
    assert _repeated(render(folder)) == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_renders_by_itself(name: str) -> None:
    manifests = render_component(name)
    assert manifests
    assert _repeated(manifests) == []


def test_production_has_all_that_the_components_bring() -> None:
    kinds = collections.Counter(item["kind"] for item in render("overlays/prod"))
    for name in COMPONENTS:
        for kind, count in collections.Counter(item["kind"] for item in render_component(name)).items():
            assert kinds[kind] >= count, f"{name} brings {count} of {kind}, production has {kinds[kind]}"


@pytest.mark.parametrize("service", CONSUMERS[1:])
def test_the_consumer_services_differ_only_in_names_numbers_and_topics(service: str) -> None:
    """So four folders can be read as one, and a change that was made in one of them only is noticed."""
    assert _normal(service) == _normal("profile")


def test_sameness_can_fail() -> None:
    spoiled = json.loads(json.dumps(render("base/rewards")))
    next(item for item in spoiled if item["kind"] == "Job")["spec"]["backoffLimit"] = 1
    assert _normalised(spoiled, "rewards") != _normal("profile")


def _normal(service: str) -> list[Any]:
    return _normalised(render(f"base/{service}"), service)


def _normalised(manifests: list[Manifest], service: str) -> list[Any]:
    """The manifests of a service, its name replaced, without what may differ."""
    text = json.dumps([item for item in manifests if not _is_own(item)])
    text = text.replace(service, "SERVICE").replace(service.upper(), "SERVICE")
    text = re.sub(r"(SERVICE-env)-[0-9a-z]{10}", r"\1", text)
    made: list[Any] = json.loads(text)
    for item in made:
        spec = item.get("spec", {})
        if item["kind"] == "HorizontalPodAutoscaler":
            del spec["minReplicas"], spec["maxReplicas"]
        if item["kind"] == "Deployment":
            for container in spec["template"]["spec"]["containers"]:
                del container["resources"]
                container["args"] = container["args"][:1]  # --topics
    return made


def _is_own(manifest: Manifest) -> bool:
    name = manifest["metadata"]["name"]
    return bool(name.endswith("-worker-views") or name == "engagement-to-channels")


def _repeated(manifests: list[Manifest]) -> list[Any]:
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in manifests]
    return [name for name, count in collections.Counter(names).items() if count > 1]
