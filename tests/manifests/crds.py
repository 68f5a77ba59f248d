"""Custom resources against the schemas of their operators' releases.

The schemas lie beside the repository, not in it. They do not see keys of a KEDA trigger, Kafka's settings and PromQL;
other tests look at those.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from tests.manifests.tools import Manifest

FOLDER = Path(__file__).parents[3] / "shared" / "crds"

OWN_GROUPS = (".k8s.io", "apps/", "batch/", "autoscaling/", "policy/")
"""What apiVersions of Kubernetes itself end or begin with; they have a test of their own."""

Kind = tuple[str, str]
"""apiVersion and kind."""


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    return manifest["apiVersion"], manifest["kind"]


def is_custom(manifest: Mapping[str, Any]) -> bool:
    """Whether the kind is not one of Kubernetes itself."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    return bool(slash) and not group.endswith(".k8s.io") and f"{group}/" not in OWN_GROUPS


@cache
def schemas() -> dict[Kind, jsonschema_rs.Validator]:
    """A strict validator for each kind; empty where the schemas are absent."""
    found = dict(_read_all())
    if found:
        found[OBJECT_STORE] = _object_store()
    return found


OBJECT_STORE = ("barmancloud.cnpg.io/v1", "ObjectStore")
"""Has no schema there; its `configuration` is a Cluster's `backup.barmanObjectStore` under another name."""


def problems(manifest: Manifest) -> list[str]:
    """What the operator's schema refuses, a line each. Raises KeyError for a kind without a schema."""
    return [f"{error.instance_path}: {error.message}" for error in schemas()[kind_of(manifest)].iter_errors(manifest)]


def strict(schema: Any, *, top: bool = True) -> Any:
    """The schema of a CRD as JSON Schema that refuses misspelt fields, which the API server only drops in silence."""
    if isinstance(schema, list):
        return [strict(item, top=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        # Beside `type`, a field may be called as a keyword is: so the names here are no keywords.
        made["properties"] = {
            name: value if top and name == "metadata" else strict(value, top=False)
            for name, value in schema["properties"].items()
        }
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    for key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "not"):
        if key in made and key in schema:
            made[key] = strict(schema[key], top=False)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def _read_all() -> Iterator[tuple[Kind, jsonschema_rs.Validator]]:
    for definition in _definitions():
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), jsonschema_rs.validator_for(schema)


def _object_store() -> jsonschema_rs.Validator:
    cluster = next(one for one in _definitions() if one["spec"]["names"]["kind"] == "Cluster")
    spec = cluster["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    text = {"type": "string"}
    own = {
        "retentionPolicy": text,
        "configuration": spec["backup"]["properties"]["barmanObjectStore"],
        "instanceSidecarConfiguration": {"type": "object", "properties": {"resources": spec["resources"]}},
    }
    properties = {
        "apiVersion": text,
        "kind": text,
        "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": own, "required": ["configuration"]},
    }
    return jsonschema_rs.validator_for(strict({"type": "object", "properties": properties, "required": ["spec"]}))


@cache
def _definitions() -> tuple[Manifest, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(yaml.load(path.read_text(), loader) for path in sorted(FOLDER.glob("*.yaml")))
