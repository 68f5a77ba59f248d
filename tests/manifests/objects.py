"""Rules for what stands around pods: Services, budgets, autoscalers, policies, labels."""

from collections.abc import Iterator
from itertools import combinations

from tests.manifests.tools import Manifest, containers, of_kind, place, workloads

NAMESPACE = "superfan"
SCALED_BY = ("HorizontalPodAutoscaler", "ScaledObject")


def labels_are_there(manifests: list[Manifest]) -> Iterator[str]:
    """Each workload and its pods tell their service and role; all lies in one namespace."""
    wanted = ["app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"]
    for workload in workloads(manifests):
        for labels in (workload["metadata"]["labels"], workload["spec"]["template"]["metadata"]["labels"]):
            yield from (f"{place(workload)}: no label {name}" for name in wanted if name not in labels)
    for item in manifests:
        if item["kind"] not in ("Namespace", "ClusterRole") and item["metadata"].get("namespace") != NAMESPACE:
            yield f"{place(item)}: not in the namespace {NAMESPACE}"


def selectors_fit(manifests: list[Manifest]) -> Iterator[str]:
    """A workload selects its own pods and no other's; what selects pods finds some."""
    running = of_kind(manifests, "Deployment", "StatefulSet")
    for workload in running:
        if not _selects(workload["spec"]["selector"], workload):
            yield f"{place(workload)}: its selector does not fit its pods"
    for one, other in combinations(running, 2):
        if _selects(one["spec"]["selector"], other) or _selects(other["spec"]["selector"], one):
            yield f"{place(one)} and {place(other)} select the same pods"
    for item in of_kind(manifests, "Service", "PodDisruptionBudget"):
        selector = item["spec"]["selector"]
        chosen = {"matchLabels": selector} if item["kind"] == "Service" else selector
        if not any(_selects(chosen, workload) for workload in running):
            yield f"{place(item)}: selects nothing"


def service_ports_exist(manifests: list[Manifest]) -> Iterator[str]:
    for service in of_kind(manifests, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        for port in service["spec"]["ports"]:
            for workload in of_kind(manifests, "Deployment", "StatefulSet"):
                names = {p["name"] for c in containers(workload) for p in c.get("ports", [])}
                if _selects(selector, workload) and port["targetPort"] not in names:
                    yield f"{place(service)}: {place(workload)} has no port {port['targetPort']}"


def budgets_are_there(manifests: list[Manifest]) -> Iterator[str]:
    """Whatever runs more than once keeps most of it while nodes are drained, and lets nodes be drained."""
    budgets = of_kind(manifests, "PodDisruptionBudget")
    for workload in of_kind(workloads(manifests), "Deployment", "StatefulSet"):
        own = [budget["spec"] for budget in budgets if _selects(budget["spec"]["selector"], workload)]
        if least_replicas(manifests, workload) > 1 and len(own) != 1:
            yield f"{place(workload)}: needs one PodDisruptionBudget, has {len(own)}"
        for spec in own:
            if spec.get("maxUnavailable") in (0, "0%") or spec.get("minAvailable") == "100%":
                yield f"{place(workload)}: its PodDisruptionBudget never lets a node be drained"


def least_replicas(manifests: list[Manifest], workload: Manifest) -> int:
    """How many pods a workload has when nothing happens."""
    return _replicas(manifests, workload, "minReplicas", "minReplicaCount")


def most_replicas(manifests: list[Manifest], workload: Manifest) -> int:
    """How many pods a workload may have."""
    return _replicas(manifests, workload, "maxReplicas", "maxReplicaCount")


def autoscalers_fit(manifests: list[Manifest]) -> Iterator[str]:
    """An autoscaler names a workload that exists, and is the only one to say how many pods there are."""
    running = {
        (item["kind"], item["metadata"]["name"]): item for item in of_kind(manifests, "Deployment", "StatefulSet")
    }
    targets = []
    for scaler in of_kind(manifests, *SCALED_BY):
        target = scaler["spec"]["scaleTargetRef"]
        key = (target.get("kind", "Deployment"), target["name"])
        if key not in running:
            yield f"{place(scaler)}: there is no {key[0]} {key[1]}"
        targets.append(key)
    yield from (
        f"{kind} {name}: has two autoscalers" for kind, name in {key for key in targets if targets.count(key) > 1}
    )
    for key, workload in running.items():
        if key in targets and "replicas" in workload["spec"]:
            yield f"{place(workload)}: `replicas` undoes its autoscaler at every apply"


def rollouts_are_gentle(manifests: list[Manifest]) -> Iterator[str]:
    """APIs never have fewer pods than before, workers never more: each that joins a group stops the others."""
    for workload in of_kind(manifests, "Deployment"):
        is_api = workload["metadata"]["labels"].get("app.kubernetes.io/component") == "api"
        wanted = {"maxUnavailable": 0, "maxSurge": 1} if is_api else {"maxUnavailable": 1, "maxSurge": 0}
        strategy = workload["spec"].get("strategy", {})
        if strategy.get("type", "RollingUpdate") != "RollingUpdate" or strategy.get("rollingUpdate") != wanted:
            yield f"{place(workload)}: its strategy must be a rolling update with {wanted}"
    for workload in of_kind(manifests, "StatefulSet"):
        if workload["spec"].get("podManagementPolicy") != "Parallel":
            yield f"{place(workload)}: a pod that is not ready holds up the next (podManagementPolicy)"


def disks_are_kept(manifests: list[Manifest]) -> Iterator[str]:
    """A spool may hold events that Kafka does not have yet."""
    for workload in of_kind(manifests, "StatefulSet"):
        policy = workload["spec"].get("persistentVolumeClaimRetentionPolicy", {})
        if set(policy.values()) - {"Retain"}:
            yield f"{place(workload)}: events would be deleted with a pod's disk"


def all_is_denied_first(manifests: list[Manifest]) -> Iterator[str]:
    """Every pod of the namespace, in both directions."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        covers_all = spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"}
        if covers_all and not spec.get("ingress") and not spec.get("egress"):
            return
    yield "no NetworkPolicy denies everything to all pods"


def policies_are_narrow(manifests: list[Manifest]) -> Iterator[str]:
    """A rule of ours names both the other side and the ports; only engagement's sender reaches the internet."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        if not _is_ours(policy):
            continue
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                peers = rule.get(side, [])
                if not peers or {} in peers or not rule.get("ports"):
                    yield f"{place(policy)}: a rule without the other side or without ports"
                if any(peer.get("namespaceSelector") == {} for peer in peers):
                    yield f"{place(policy)}: a rule for all namespaces"
                if any("ipBlock" in peer for peer in peers) and policy["metadata"]["name"] != "engagement-to-channels":
                    yield f"{place(policy)}: a rule for addresses"


def _is_ours(policy: Manifest) -> bool:
    """Whether it is for pods of the services; Kafka's and PostgreSQL's have policies in components/."""
    labels = policy["spec"]["podSelector"].get("matchLabels", {})
    return any(name.startswith("app.kubernetes.io/") for name in labels)


def _replicas(manifests: list[Manifest], workload: Manifest, *fields: str) -> int:
    for scaler in of_kind(manifests, *SCALED_BY):
        target = scaler["spec"]["scaleTargetRef"]
        if (target.get("kind", "Deployment"), target["name"]) == (workload["kind"], workload["metadata"]["name"]):
            return next(int(scaler["spec"][field]) for field in fields if field in scaler["spec"])
    return int(workload["spec"].get("replicas", 1))


def _selects(selector: Manifest, workload: Manifest) -> bool:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return bool(selector["matchLabels"].items() <= labels.items())
