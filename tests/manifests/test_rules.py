"""The rules of pods.py and objects.py hold in every rendering that has pods; and each of them can fail."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.manifests import objects, pods
from tests.manifests.tools import SERVICES, Manifest, named, pod_spec, render

Rule = Callable[[list[Manifest]], Iterator[str]]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        pods.image_is_pinned,
        pods.resources_are_bounded,
        pods.probes_are_there,
        pods.user_is_not_root,
        pods.system_is_read_only,
        pods.no_capabilities,
        pods.no_privileges,
        pods.system_calls_are_filtered,
        pods.nothing_of_the_node,
        pods.own_account_without_token,
        pods.no_secrets_in_environment,
        pods.own_secrets_only,
        pods.mounts_are_folders,
        pods.stop_is_given_time,
        pods.pods_are_spread,
        pods.databases_are_waited_for,
        objects.labels_are_there,
        objects.selectors_fit,
        objects.service_ports_exist,
        objects.budgets_are_there,
        objects.autoscalers_fit,
        objects.rollouts_are_gentle,
        objects.disks_are_kept,
        objects.all_is_denied_first,
        objects.policies_are_narrow,
    )
}
PER_SERVICE = {name: rule for name, rule in RULES.items() if name != "all_is_denied_first"}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("folder", ["overlays/prod", "overlays/dev", "base"])
def test_the_whole_keeps_every_rule(folder: str, rule: Rule) -> None:
    assert list(rule(render(folder))) == []


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_alone_keeps_every_rule(service: str) -> None:
    manifests = render(f"base/{service}")
    assert [problem for rule in PER_SERVICE.values() for problem in rule(manifests)] == []


def _api(manifests: list[Manifest]) -> Any:
    return named(manifests, "Deployment", "profile-api")


def _app(manifests: list[Manifest]) -> Any:
    return pod_spec(_api(manifests))["containers"][0]


def _migration(manifests: list[Manifest]) -> Any:
    return pod_spec(named(manifests, "Job", "profile-migrate"))["containers"][0]


def _remove(manifests: list[Manifest], kind: str, name: str) -> None:
    manifests.remove(named(manifests, kind, name))


Spoil = Callable[[list[Manifest]], Any]

# What somebody may do by mistake, and the one rule that must notice.
SPOILED: dict[str, tuple[str, Spoil]] = {
    "latest": ("image_is_pinned", lambda m: _migration(m).update(image="superfan/profile:latest")),
    "no tag": ("image_is_pinned", lambda m: _migration(m).update(image="registry:5000/superfan/profile")),
    "no memory limit": ("resources_are_bounded", lambda m: _app(m)["resources"].pop("limits")),
    "more memory than asked for": (
        "resources_are_bounded",
        lambda m: _app(m)["resources"]["limits"].update(memory="1Gi"),
    ),
    "CPU limit": ("resources_are_bounded", lambda m: _app(m)["resources"]["limits"].update(cpu="1")),
    "no CPU request": ("resources_are_bounded", lambda m: _app(m)["resources"]["requests"].pop("cpu")),
    "no liveness": ("probes_are_there", lambda m: _app(m).pop("livenessProbe")),
    "probe of a port that is not there": (
        "probes_are_there",
        lambda m: _app(m)["readinessProbe"]["httpGet"].update(port="health"),
    ),
    "hasty probe": ("probes_are_there", lambda m: _app(m)["readinessProbe"].update(timeoutSeconds=1)),
    "root": ("user_is_not_root", lambda m: _app(m)["securityContext"].update(runAsUser=0)),
    "root by default": ("user_is_not_root", lambda m: pod_spec(_api(m))["securityContext"].pop("runAsUser")),
    "writable system": ("system_is_read_only", lambda m: _app(m)["securityContext"].pop("readOnlyRootFilesystem")),
    "a capability": (
        "no_capabilities",
        lambda m: _app(m)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}),
    ),
    "privileged": ("no_privileges", lambda m: _app(m)["securityContext"].update(privileged=True)),
    "may become privileged": ("no_privileges", lambda m: _app(m)["securityContext"].pop("allowPrivilegeEscalation")),
    "no seccomp": ("system_calls_are_filtered", lambda m: pod_spec(_api(m))["securityContext"].pop("seccompProfile")),
    "host network": ("nothing_of_the_node", lambda m: pod_spec(_api(m)).update(hostNetwork=True)),
    "a folder of the node": (
        "nothing_of_the_node",
        lambda m: pod_spec(_api(m))["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    "host port": ("nothing_of_the_node", lambda m: _app(m)["ports"][0].update(hostPort=80)),
    "a token": ("own_account_without_token", lambda m: pod_spec(_api(m)).update(automountServiceAccountToken=True)),
    "another's account": (
        "own_account_without_token",
        lambda m: pod_spec(_api(m)).update(serviceAccountName="rewards"),
    ),
    "addresses of all Services": ("own_account_without_token", lambda m: pod_spec(_api(m)).pop("enableServiceLinks")),
    "a password in the URL": (
        "no_secrets_in_environment",
        lambda m: _app(m)["env"].append({"name": "SUPERFAN_PROFILE_PG_URL", "value": "postgresql://profile:x@db/p"}),
    ),
    "a Secret as a variable": (
        "no_secrets_in_environment",
        lambda m: _app(m)["envFrom"].append({"secretRef": {"name": "profile-db-app"}}),
    ),
    "another's Secret": (
        "own_secrets_only",
        lambda m: pod_spec(_api(m))["volumes"].append({"name": "x", "secret": {"secretName": "rewards-db-app"}}),
    ),
    "subPath": ("mounts_are_folders", lambda m: _app(m)["volumeMounts"][0].update(subPath="password")),
    "a volume that is not there": ("mounts_are_folders", lambda m: _app(m)["volumeMounts"][0].update(name="pg")),
    "killed while stopping": (
        "stop_is_given_time",
        lambda m: pod_spec(_api(m)).update(terminationGracePeriodSeconds=55),
    ),
    "no drain": (
        "stop_is_given_time",
        lambda m: _app(m)["env"].remove({"name": "SUPERFAN_DRAIN_SECONDS", "value": "10"}),
    ),
    "all on one node": ("pods_are_spread", lambda m: pod_spec(_api(m))["topologySpreadConstraints"].pop()),
    "all workloads spread as one": (
        "pods_are_spread",
        lambda m: pod_spec(_api(m))["topologySpreadConstraints"][0].pop("matchLabelKeys"),
    ),
    "no waiting for tables": ("databases_are_waited_for", lambda m: pod_spec(_api(m)).pop("initContainers")),
    "an old image that waits": (
        "databases_are_waited_for",
        lambda m: pod_spec(_api(m))["initContainers"][0].update(image="superfan/profile:0.1.0"),
    ),
    "a Job for ever": (
        "databases_are_waited_for",
        lambda m: named(m, "Job", "profile-migrate")["spec"].pop("ttlSecondsAfterFinished"),
    ),
    "no part-of": (
        "labels_are_there",
        lambda m: _api(m)["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
    ),
    "another namespace": ("labels_are_there", lambda m: _api(m)["metadata"].update(namespace="default")),
    "an API that selects the workers too": (
        "selectors_fit",
        lambda m: _api(m)["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
    ),
    "a Service of nothing": (
        "selectors_fit",
        lambda m: named(m, "Service", "profile")["spec"]["selector"].update({"app.kubernetes.io/component": "web"}),
    ),
    "a Service's port that is not there": (
        "service_ports_exist",
        lambda m: named(m, "Service", "profile")["spec"]["ports"][0].update(targetPort="web"),
    ),
    "no budget": ("budgets_are_there", lambda m: _remove(m, "PodDisruptionBudget", "rewards-worker")),
    "a budget of all": (
        "budgets_are_there",
        lambda m: named(m, "PodDisruptionBudget", "profile-api")["spec"].update(minAvailable="100%"),
    ),
    "an autoscaler of nothing": (
        "autoscalers_fit",
        lambda m: named(m, "HorizontalPodAutoscaler", "profile-api")["spec"]["scaleTargetRef"].update(
            name="profil-api"
        ),
    ),
    "replicas beside an autoscaler": ("autoscalers_fit", lambda m: _api(m)["spec"].update(replicas=2)),
    "a surge of workers": (
        "rollouts_are_gentle",
        lambda m: named(m, "Deployment", "rewards-worker")["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1),
    ),
    "an API with fewer pods than before": (
        "rollouts_are_gentle",
        lambda m: _api(m)["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    ),
    "one after another": (
        "rollouts_are_gentle",
        lambda m: named(m, "StatefulSet", "ingest")["spec"].pop("podManagementPolicy"),
    ),
    "a spool that goes with its pod": (
        "disks_are_kept",
        lambda m: named(m, "StatefulSet", "ingest")["spec"]["persistentVolumeClaimRetentionPolicy"].update(
            whenScaled="Delete"
        ),
    ),
    "nothing denied": ("all_is_denied_first", lambda m: _remove(m, "NetworkPolicy", "default-deny")),
    "denied for a part": (
        "all_is_denied_first",
        lambda m: named(m, "NetworkPolicy", "default-deny")["spec"]["podSelector"].update(
            matchLabels={"app.kubernetes.io/part-of": "superfan"}
        ),
    ),
    "open to all namespaces": (
        "policies_are_narrow",
        lambda m: named(m, "NetworkPolicy", "profile-api")["spec"]["ingress"][0]["from"][0].update(
            namespaceSelector={}
        ),
    ),
    "the whole internet": (
        "policies_are_narrow",
        lambda m: named(m, "NetworkPolicy", "profile-to-database")["spec"]["egress"][0].pop("to"),
    ),
}


@pytest.mark.parametrize(("expected", "spoil"), SPOILED.values(), ids=SPOILED)
def test_a_mistake_is_noticed_by_the_rule_for_it(expected: str, spoil: Spoil) -> None:
    manifests = copy.deepcopy(render("overlays/prod"))
    spoil(manifests)
    assert [name for name, rule in RULES.items() if list(rule(manifests))] == [expected]


def test_each_rule_has_a_mistake() -> None:
    assert {expected for expected, _ in SPOILED.values()} == set(RULES)
