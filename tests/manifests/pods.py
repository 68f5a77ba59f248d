"""Rules for pods. Each takes all manifests of a rendering and tells what is wrong, a line each."""

from collections.abc import Iterator
from typing import Any

from libs.common import service as consumer_service
from libs.common.health import CHECK_SECONDS
from services.ingest import main as ingest
from tests.manifests.tools import CONSUMERS, Manifest, containers, environment, of_kind, place, pod_spec, workloads

RUNNING = ("Deployment", "StatefulSet")
SPREAD_OVER = {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
IN_SECRET = ("PASSWORD", "SECRET", "TOKEN", "API_KEY", "CREDENTIAL")


def image_is_pinned(manifests: list[Manifest]) -> Iterator[str]:
    """A tag or a digest, and never one that moves by design."""
    for workload, container in _all_containers(manifests):
        image = container["image"].rpartition("/")[2]
        if "@sha256:" not in image and (":" not in image or image.endswith(":latest")):
            yield f"{place(workload)}: the image {container['image']} is not pinned by a version or a digest"


def resources_are_bounded(manifests: list[Manifest]) -> Iterator[str]:
    """CPU and memory are asked for; memory is limited to what is asked for."""
    for workload, container in _all_containers(manifests):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        where = f"{place(workload)}, {container['name']}"
        for name in ("cpu", "memory"):
            if name not in requests:
                yield f"{where}: no request for {name}"
        if limits.get("memory") is None or limits["memory"] != requests.get("memory"):
            yield f"{where}: the memory limit must be there and equal the request"
        if "cpu" in limits:
            yield f"{where}: a CPU limit stops requests in the middle (base/profile/api.yaml)"


def probes_are_there(manifests: list[Manifest]) -> Iterator[str]:
    """All three, with a timeout longer than a check may take inside the process."""
    for workload in of_kind(workloads(manifests), *RUNNING):
        for container in pod_spec(workload)["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind)
                where = f"{place(workload)}, {container['name']}: {kind}"
                if probe is None:
                    yield f"{where} is missing"
                elif probe.get("httpGet", {}).get("port") not in ports:
                    yield f"{where} asks a port that the container has not"
                elif probe.get("timeoutSeconds", 1) <= CHECK_SECONDS:
                    yield f"{where} gives up before the checks behind it ({CHECK_SECONDS:g} s)"


def user_is_not_root(manifests: list[Manifest]) -> Iterator[str]:
    """A number above 10,000 is nobody on the node either."""
    for workload, container in _all_containers(manifests):
        context = _context(workload, container)
        if context.get("runAsNonRoot") is not True or int(context.get("runAsUser", 0)) <= 10_000:
            yield f"{place(workload)}, {container['name']}: must run as a user that is not root, above 10000"


def system_is_read_only(manifests: list[Manifest]) -> Iterator[str]:
    for workload, container in _all_containers(manifests):
        if _context(workload, container).get("readOnlyRootFilesystem") is not True:
            yield f"{place(workload)}, {container['name']}: readOnlyRootFilesystem must be true"


def no_capabilities(manifests: list[Manifest]) -> Iterator[str]:
    for workload, container in _all_containers(manifests):
        if _context(workload, container).get("capabilities") != {"drop": ["ALL"]}:
            yield f"{place(workload)}, {container['name']}: all capabilities must be dropped, none added"


def no_privileges(manifests: list[Manifest]) -> Iterator[str]:
    for workload, container in _all_containers(manifests):
        context = _context(workload, container)
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield f"{place(workload)}, {container['name']}: must not be privileged nor become it"


def system_calls_are_filtered(manifests: list[Manifest]) -> Iterator[str]:
    for workload, container in _all_containers(manifests):
        if _context(workload, container).get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{place(workload)}, {container['name']}: seccompProfile must be RuntimeDefault"


def nothing_of_the_node(manifests: list[Manifest]) -> Iterator[str]:
    for workload in workloads(manifests):
        spec = pod_spec(workload)
        yield from (
            f"{place(workload)}: {name}"
            for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers")
            if spec.get(name)
        )
        yield from (f"{place(workload)}: hostPath {v['name']}" for v in spec.get("volumes", []) if "hostPath" in v)
        for container in containers(workload):
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{place(workload)}: hostPort"


def own_account_without_token(manifests: list[Manifest]) -> Iterator[str]:
    """No pod speaks with the cluster's API; each service has an account of its own."""
    accounts = {item["metadata"]["name"]: item for item in of_kind(manifests, "ServiceAccount")}
    for workload in workloads(manifests):
        spec = pod_spec(workload)
        name = spec.get("serviceAccountName")
        if name != workload["metadata"]["labels"].get("app.kubernetes.io/name") or name not in accounts:
            yield f"{place(workload)}: its ServiceAccount must be that of its service, and exist"
        elif accounts[name].get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {name}: automountServiceAccountToken must be false"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{place(workload)}: automountServiceAccountToken must be false"
        if spec.get("enableServiceLinks") is not False:
            yield f"{place(workload)}: enableServiceLinks must be false"


def no_secrets_in_environment(manifests: list[Manifest]) -> Iterator[str]:
    """Secrets are files: an environment is printed by tools, inherited and kept in crash reports."""
    for workload, container in _all_containers(manifests):
        where = f"{place(workload)}, {container['name']}"
        for entry in [*container.get("env", []), *container.get("envFrom", [])]:
            if "secretRef" in entry or "secretKeyRef" in entry.get("valueFrom", {}):
                yield f"{where}: a Secret in the environment"
        for name, value in environment(manifests, container).items():
            if any(word in name for word in IN_SECRET) and not name.endswith("_FILE"):
                yield f"{where}: {name} looks like a secret"
            if "://" in value and ":" in value.partition("://")[2].rpartition("@")[0]:
                yield f"{where}: {name} holds a password"


def own_secrets_only(manifests: list[Manifest]) -> Iterator[str]:
    """A pod mounts the Secrets of its own service: whoever breaks into it gets no other's database or Kafka user."""
    for workload in workloads(manifests):
        name = workload["metadata"]["labels"]["app.kubernetes.io/name"]
        own = {f"kafka-{name}", f"{name}-db-app", f"{name}-db-ca", "superfan-secrets", "superfan-cluster-ca-cert"}
        for volume in pod_spec(workload).get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            used = {
                source["secret"].get("secretName") or source["secret"].get("name")
                for source in sources
                if "secret" in source
            }
            yield from (f"{place(workload)}: mounts the Secret {secret}" for secret in sorted(map(str, used - own)))


def mounts_are_folders(manifests: list[Manifest]) -> Iterator[str]:
    """What is mounted by subPath never changes again while the pod lives."""
    for workload in workloads(manifests):
        claims = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in pod_spec(workload).get("volumes", [])} | {c["metadata"]["name"] for c in claims}
        for container in containers(workload):
            for mount in container.get("volumeMounts", []):
                if "subPath" in mount or "subPathExpr" in mount:
                    yield f"{place(workload)}: {mount['mountPath']} is mounted by subPath"
                if mount["name"] not in volumes:
                    yield f"{place(workload)}: there is no volume {mount['name']}"


def stop_is_given_time(manifests: list[Manifest]) -> Iterator[str]:
    """Longer than draining and the ordered stop together; else some stops are kills."""
    for workload in of_kind(workloads(manifests), *RUNNING):
        name = workload["metadata"]["labels"]["app.kubernetes.io/name"]
        stop = consumer_service.STOP_SECONDS if name in CONSUMERS else ingest.STOP_SECONDS
        spec = pod_spec(workload)
        drain = float(environment(manifests, spec["containers"][0]).get("SUPERFAN_DRAIN_SECONDS", "0"))
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if drain < 5:
            yield f"{place(workload)}: needs SUPERFAN_DRAIN_SECONDS: Services take a while to notice that a pod goes"
        elif grace < drain + stop + 5:
            yield f"{place(workload)}: {grace} s are too short to drain ({drain:g} s) and to stop in order ({stop} s)"


def pods_are_spread(manifests: list[Manifest]) -> Iterator[str]:
    for workload in of_kind(workloads(manifests), *RUNNING):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        over = set()
        for constraint in pod_spec(workload).get("topologySpreadConstraints", []):
            selected = constraint["labelSelector"].get("matchLabels", {})
            keys = {*selected, *constraint.get("matchLabelKeys", [])}
            told_apart = {"app.kubernetes.io/name", "app.kubernetes.io/component"} <= keys
            if told_apart and selected.items() <= labels.items():
                over.add(constraint["topologyKey"])
        if missing := SPREAD_OVER - over:
            yield f"{place(workload)}: its pods are not spread over {', '.join(sorted(missing))}"


def databases_are_waited_for(manifests: list[Manifest]) -> Iterator[str]:
    """No pod of a service with a database starts before its tables are there, and none makes them."""
    for workload in of_kind(workloads(manifests), "Deployment"):
        spec = pod_spec(workload)
        waits = [c for c in spec.get("initContainers", []) if c.get("args") == ["migrate", "--wait"]]
        if not waits or waits[0]["image"] != spec["containers"][0]["image"]:
            yield f"{place(workload)}: an initContainer of the same image must wait for the tables (migrate --wait)"
    for job in of_kind(workloads(manifests), "Job"):
        annotations = job["metadata"].get("annotations", {})
        if "backoffLimit" not in job["spec"] or "ttlSecondsAfterFinished" not in job["spec"]:
            yield f"{place(job)}: needs backoffLimit and ttlSecondsAfterFinished"
        if not annotations.get("argocd.argoproj.io/hook"):
            yield f"{place(job)}: Argo CD cannot change a Job; it must be a hook"


def _all_containers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for workload in workloads(manifests):
        for container in containers(workload):
            yield workload, container


def _context(workload: Manifest, container: Manifest) -> dict[str, Any]:
    """The pod's security context, overridden by the container's."""
    return {**pod_spec(workload).get("securityContext", {}), **container.get("securityContext", {})}
