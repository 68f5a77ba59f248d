"""Kafka's topics and users, and KEDA's triggers, say what the code does: no more, no less."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.cli.local.jars import KAFKA_VERSION
from libs.common.consumer.worker import group_of
from libs.common.events import EVENT_TYPES, TOPICS
from libs.common.kafka.admin import topic_settings
from libs.common.kafka.producer import MAX_RECORD_BYTES
from services.ingest.usecases import REJECTED_TOPIC
from tests.manifests.tools import CONSUMERS, Manifest, of_kind, render

ROOT = Path(__file__).parents[2]
READS: dict[str, tuple[str, ...]] = {
    service: tuple(importlib.import_module(f"services.{service}.main").SERVICE.topics) for service in CONSUMERS
}
PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}
INPUTS = {event_type.topic for event_type in EVENT_TYPES.values() if event_type.direction == "input"}

Right = tuple[str, str, str]
"""Type of resource, its name, operation."""


def written_by(service: str) -> set[str]:
    """Topics of the event types that the service makes: the derived ones that it names without reading them, and those
    that it names as the first argument of `new_event`."""
    types = set()
    for path in (ROOT / "services" / service).rglob("*.py"):
        tree = ast.parse(path.read_text())
        types |= {name for name in _types_in(tree) if EVENT_TYPES[name].topic not in {*READS[service], *INPUTS}}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "new_event":
                types |= set(_types_in(call.args[0]))
    return {EVENT_TYPES[name].topic for name in types}


def _types_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if text in EVENT_TYPES:
                yield text
            case ast.JoinedStr(values=[ast.Constant(value=str(prefix)), *_]):
                yield from (name for name in EVENT_TYPES if prefix.endswith(".") and name.startswith(prefix))


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render("overlays/prod")


@pytest.fixture(scope="module")
def rights(everything: list[Manifest]) -> dict[str, set[Right]]:
    """What each Kafka user may do."""
    found: dict[str, set[Right]] = {}
    for user in of_kind(everything, "KafkaUser"):
        assert user["spec"]["authentication"] == {"type": "scram-sha-512"}
        assert user["metadata"]["labels"]["strimzi.io/cluster"] == "superfan"
        acls = user["spec"]["authorization"]["acls"]
        assert {acl["resource"]["patternType"] for acl in acls} == {"literal"}
        assert "*" not in {acl["resource"]["name"] for acl in acls}
        assert {acl.get("type", "allow") for acl in acls} == {"allow"}
        found[user["metadata"]["name"]] = {
            (acl["resource"]["type"], acl["resource"]["name"], operation)
            for acl in acls
            for operation in acl["operations"]
        }
    return found


def reading(topic: str) -> set[Right]:
    return {("topic", topic, "Describe"), ("topic", topic, "Read")}


def writing(topic: str) -> set[Right]:
    return {("topic", topic, "Describe"), ("topic", topic, "Write")}


def test_topics_are_those_of_the_code(everything: list[Manifest]) -> None:
    declared = {
        one["metadata"]["name"]: (
            one["spec"]["partitions"],
            one["spec"]["replicas"],
            {key: str(value) for key, value in one["spec"]["config"].items()},
        )
        for one in of_kind(everything, "KafkaTopic")
    }
    assert declared == {
        topic.name: (topic.partitions, 3, {**topic_settings(topic), "min.insync.replicas": "2"}) for topic in TOPICS
    }


def test_brokers_are_as_the_code_expects(everything: list[Manifest]) -> None:
    [kafka] = of_kind(everything, "Kafka")
    spec = kafka["spec"]["kafka"]
    assert spec["version"] == KAFKA_VERSION
    assert spec["config"]["message.max.bytes"] == MAX_RECORD_BYTES
    assert spec["config"]["auto.create.topics.enable"] is False
    [listener] = spec["listeners"]
    assert (listener["port"], listener["tls"], listener["authentication"]) == (9093, True, {"type": "scram-sha-512"})
    assert listener["networkPolicyPeers"]
    pools = {one["metadata"]["name"]: one["spec"] for one in of_kind(everything, "KafkaNodePool")}
    assert {name: (pool["roles"], pool["replicas"]) for name, pool in pools.items()} == {
        "controller": (["controller"], 3),
        "broker": (["broker"], 3),
    }
    volumes = [volume for pool in pools.values() for volume in pool["storage"]["volumes"]]
    assert [volume["deleteClaim"] for volume in volumes] == [False] * len(volumes)


def test_ingest_writes_inputs_and_refusals_and_reads_nothing(rights: dict[str, set[Right]]) -> None:
    assert rights["kafka-ingest"] == {right for topic in {*INPUTS, REJECTED_TOPIC} for right in writing(topic)}


@pytest.mark.parametrize("service", CONSUMERS)
def test_a_service_may_what_its_code_does(rights: dict[str, set[Right]], service: str) -> None:
    expected = {("group", group_of(service, topic), "Read") for topic in READS[service]}
    expected |= {right for topic in READS[service] for right in reading(topic)}
    expected |= {right for topic in written_by(service) for right in writing(topic)}
    assert rights[f"kafka-{service}"] == expected


def test_what_is_made_is_what_the_events_are_for() -> None:
    """The search through the code finds each derived type's one producer."""
    derived = {event_type.topic for event_type in EVENT_TYPES.values() if event_type.direction == "derived"}
    assert {service: written_by(service) for service in CONSUMERS} == {
        "profile": {"superfan.profiles"},
        "segmentation": {"superfan.segments"},
        "engagement": {"superfan.messages"},
        "rewards": {"superfan.rewards", "superfan.interactions"},
    }
    assert derived <= set().union(*(written_by(service) for service in CONSUMERS))


def test_only_profile_reads_personal_data(rights: dict[str, set[Right]]) -> None:
    readers = {user for user, allowed in rights.items() if ("topic", "superfan.traits", "Read") in allowed}
    assert readers == {"kafka-profile"}


def test_keda_may_look_at_positions_and_nothing_else(rights: dict[str, set[Right]]) -> None:
    topics = {topic for topics in READS.values() for topic in topics}
    groups = {group_of(service, topic) for service, topics in READS.items() for topic in topics}
    assert rights["kafka-keda"] == {("topic", topic, "Describe") for topic in topics} | {
        ("group", group, "Describe") for group in groups
    }


def test_every_service_has_one_user(rights: dict[str, set[Right]], everything: list[Manifest]) -> None:
    used = {
        variable["value"]
        for pod in _pods(everything)
        for container in pod["containers"]
        for variable in container.get("env", [])
        if variable["name"] == "SUPERFAN_KAFKA_USER"
    }
    assert rights.keys() == used | {"kafka-keda"}


# KEDA

TRIGGER_KEYS = {
    "bootstrapServers",
    "topic",
    "consumerGroup",
    "lagThreshold",
    "activationLagThreshold",
    "offsetResetPolicy",
    "allowIdleConsumers",
    "excludePersistentLag",
    "scaleToZeroOnInvalidOffset",
    "limitToPartitionsWithLag",
    "ensureEvenDistributionOfPartitions",
    "partitionLimitation",
    "version",
    "sasl",
    "tls",
    "unsafeSsl",
}
"""What KEDA 2.20's kafka scaler reads from a trigger; a misspelt key is passed over in silence."""


def _pods(manifests: list[Manifest]) -> Iterator[dict[str, Any]]:
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]


def workers(manifests: list[Manifest]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Service and topics of each worker Deployment, by its arguments."""
    found = {}
    for one in of_kind(manifests, "Deployment"):
        [container] = one["spec"]["template"]["spec"]["containers"]
        role, *options = container["args"]
        if role != "worker":
            continue
        service = one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        topics = READS[service]
        if options:
            option, names = options
            assert option == "--topics"
            topics = tuple(f"superfan.{name.removeprefix('superfan.')}" for name in names.split(","))
        found[one["metadata"]["name"]] = service, topics
    return found


def test_workers_share_out_the_topics_of_their_service(everything: list[Manifest]) -> None:
    shared: dict[str, list[str]] = {service: [] for service in CONSUMERS}
    for service, topics in workers(everything).values():
        shared[service] += topics
    assert {service: sorted(topics) for service, topics in shared.items()} == {
        service: sorted(topics) for service, topics in READS.items()
    }


def test_workers_are_scaled_by_what_they_read(everything: list[Manifest]) -> None:
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind(everything, "ScaledObject")}
    deployed = workers(everything)
    assert scaled.keys() == deployed.keys()
    for name, spec in scaled.items():
        service, topics = deployed[name]
        looked_at = [(one["metadata"]["topic"], one["metadata"]["consumerGroup"]) for one in spec["triggers"]]
        assert sorted(looked_at) == sorted((topic, group_of(service, topic)) for topic in topics)
        assert {one["type"] for one in spec["triggers"]} == {"kafka"}
        assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
        assert spec["maxReplicaCount"] <= min(PARTITIONS[topic] for topic in topics)


def test_no_deployment_has_two_autoscalers(everything: list[Manifest]) -> None:
    by_keda = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(everything, "ScaledObject")}
    by_hpa = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(everything, "HorizontalPodAutoscaler")}
    assert not by_keda & by_hpa


def test_triggers_ask_where_the_services_connect(everything: list[Manifest]) -> None:
    addresses = {
        variable["value"]
        for pod in _pods(everything)
        for container in pod["containers"]
        for variable in container.get("env", [])
        if variable["name"] == "SUPERFAN_KAFKA"
    }
    [authentication] = of_kind(everything, "TriggerAuthentication")
    [kafka] = of_kind(everything, "Kafka")
    assert addresses == {f"{kafka['metadata']['name']}-kafka-bootstrap:9093"}
    for scaled in of_kind(everything, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            metadata = trigger["metadata"]
            assert metadata.keys() <= TRIGGER_KEYS
            assert {metadata["bootstrapServers"]} == addresses
            assert metadata["offsetResetPolicy"] == "earliest"  # as libs.common.kafka.consumer
            assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
            both = {"limitToPartitionsWithLag", "ensureEvenDistributionOfPartitions"}
            assert {metadata.get(key) for key in both} != {"true"}  # KEDA refuses the two together


def test_keda_logs_in_as_its_own_user(everything: list[Manifest]) -> None:
    [authentication] = of_kind(everything, "TriggerAuthentication")
    spec = authentication["spec"]
    assert spec.keys() == {"configMapTargetRef", "secretTargetRef"}
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(everything, "ConfigMap")}
    given = {one["parameter"]: maps[one["name"]][one["key"]] for one in spec["configMapTargetRef"]}
    assert given == {"sasl": "scram_sha512", "tls": "enable", "username": "kafka-keda"}
    # Secrets that Strimzi makes: of the user's name, and of the cluster's.
    assert {one["parameter"]: (one["name"], one["key"]) for one in spec["secretTargetRef"]} == {
        "password": (given["username"], "password"),
        "ca": ("superfan-cluster-ca-cert", "ca.crt"),
    }
