"""Renders kustomizations, with the kubectl or kustomize of this machine or else one from a wheel."""

import functools
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from libs.cli.local.tools import wheel_folder

Manifest = dict[str, Any]

K8S = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
SERVICES = ("ingest", "profile", "segmentation", "engagement", "rewards")
CONSUMERS = SERVICES[1:]


class RenderError(Exception):
    """A kustomization cannot be built."""


@functools.cache
def kustomize() -> tuple[str, ...]:
    """The command that builds the folder which is its last argument."""
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    if program := shutil.which("kustomize"):
        return (program, "build")
    return (str(kubectl_of_wheel()), "kustomize")


def kubectl_of_wheel() -> Path:
    """kubectl out of the wheel of deploy/local/kubectl.lock: in an archive, in an archive."""
    folder = wheel_folder("kubectl", "kubectl is not installed", print)
    program = folder / "kubectl"
    if not program.exists():
        with tarfile.open(next(folder.glob("aws_cdk/*/_jsii/*.tgz"))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                half = program.with_name(f"kubectl.{os.getpid()}")
                half.write_bytes(archive.read("kubectl/kubectl"))
        half.chmod(0o755)
        half.rename(program)
    return program


@functools.cache
def render(path: str) -> list[Manifest]:
    """What `kubectl apply -k deploy/k8s/<path>` sends. The list is shared: copy it before changing it."""
    return build(K8S / path)


@functools.cache
def render_component(name: str) -> list[Manifest]:
    """What components/<name> adds by itself, without a base."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.relpath((K8S / "components" / name).resolve(), Path(folder).resolve())
        Path(folder, "kustomization.yaml").write_text(f"components: [{path}]\n")
        return build(Path(folder))


def build(folder: Path) -> list[Manifest]:
    """The manifests of a kustomization. Raises RenderError."""
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RenderError(f"{folder}: {done.stderr.strip()}")
    return list(yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    return next(item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """All of these kinds, in order."""
    return [item for item in manifests if item["kind"] in kinds]


def place(manifest: Manifest) -> str:
    """How a message names a manifest."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    """All of ours that has pods."""
    return of_kind(manifests, "Deployment", "StatefulSet", "Job")


def pod_spec(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Manifest) -> list[Manifest]:
    """The containers of a workload's pod, those that run before the others too."""
    spec = pod_spec(workload)
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """The variables that a container sees: of the ConfigMaps that it names, then its own."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}
