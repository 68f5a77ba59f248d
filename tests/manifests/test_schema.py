"""What Kubernetes itself defines, against its schemas: strictly, as it drops a misspelt field in silence."""

import copy
import functools
from collections.abc import Iterator

import kubernetes_validate  # type: ignore[import-untyped]
import kubernetes_validate.utils  # type: ignore[import-untyped]
import pytest

from tests.manifests import crds
from tests.manifests.tools import Manifest, named, place, render

VERSIONS = ("1.30", "1.34", "1.37")
"""The oldest that has all fields that are used, a usual one, the newest."""

OWN_GROUPS = ("apps", "batch", "autoscaling", "policy", "networking.k8s.io")


@pytest.fixture(scope="module", autouse=True)
def read_schemas_once() -> Iterator[None]:
    """The library reads 1.5 MB for every manifest."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("schema_contents", "all_versions"):
            patch.setattr(kubernetes_validate.utils, name, functools.cache(getattr(kubernetes_validate.utils, name)))
        yield


def _core(manifests: list[Manifest]) -> list[Manifest]:
    return [item for item in manifests if item["apiVersion"] == "v1" or item["apiVersion"].split("/")[0] in OWN_GROUPS]


def _problem(manifest: Manifest, version: str) -> str | None:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{place(manifest)}: {'.'.join(map(str, error.path))}: {error.message}"
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_production_is_valid(version: str) -> None:
    assert [problem for item in _core(render("overlays/prod")) if (problem := _problem(item, version))] == []


def test_development_is_valid() -> None:
    assert [problem for item in _core(render("overlays/dev")) if (problem := _problem(item, VERSIONS[1]))] == []


@pytest.mark.skipif(not crds.FOLDER.is_dir(), reason="the schemas of the operators are not beside the project")
def test_custom_resources_of_development_are_valid() -> None:
    """Production's have a test of their own; development patches them."""
    custom = [item for item in render("overlays/dev") if crds.is_custom(item)]
    assert {place(item): found for item in custom if (found := crds.problems(item))} == {}
    assert custom


def test_a_misspelt_field_is_noticed() -> None:
    manifest = copy.deepcopy(named(render("base/profile"), "Deployment", "profile-api"))
    manifest["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 70
    assert "terminationGracePeriodSecond" in str(_problem(manifest, VERSIONS[0]))
