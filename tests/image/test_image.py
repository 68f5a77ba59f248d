"""deploy/Dockerfile and deploy/compose.yaml without Docker: each image is made by hand, and every role of it runs with
the environment and in the order that compose.yaml gives, on a real Kafka and a real PostgreSQL."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from libs.cli.local.jars import fetch_jars
from libs.cli.local.kafka import KafkaServer, find_java
from libs.cli.local.processes import Child, free_ports
from libs.common.events import TOPICS
from libs.common.kafka.admin import admin_client
from libs.common.settings import variable_name
from services.engagement.settings import Settings as EngagementSettings
from services.ingest.settings import Settings as IngestSettings
from services.profile.settings import Settings as ProfileSettings
from services.rewards.settings import Settings as RewardsSettings
from services.segmentation.settings import Settings as SegmentationSettings
from tests.image.handmade import DOCKERFILE, ROOT, Image, read
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
SETTINGS = (IngestSettings, ProfileSettings, SegmentationSettings, EngagementSettings, RewardsSettings)


def test_the_base_is_pinned_and_the_final_stage_bare() -> None:
    text = DOCKERFILE.read_text()
    arguments, stages = read(text)
    build, final = stages
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", arguments["PYTHON"])
    assert build.base == final.base == arguments["PYTHON"]
    assert "latest" not in text
    assert "--require-hashes" in text
    (user,) = final.all("USER")
    assert all(int(number) > 10_000 for number in user.value.split(":"))
    (removal,) = final.all("RUN")
    assert removal.value.startswith("rm -rf /usr/local/bin/pip* ")
    assert not re.search(r"apt|apk|gcc|install -r|pip install|curl|wget", removal.value)
    assert {copy.value.split()[0] for copy in final.all("COPY")} == {"--from=build"}, "only what the first stage made"
    secret = re.compile(r"password|secret|token|key|PG_URL", re.IGNORECASE)
    assert not [name for stage in stages for env in stage.all("ENV") for name in env.pairs if secret.search(name)]


def test_env_names_exist_and_open_every_service_to_its_pod() -> None:
    env = read(DOCKERFILE.read_text())[1][1].all("ENV")[0].pairs
    assert {variable_name(settings, "http_host"): "0.0.0.0" for settings in SETTINGS}.items() <= env.items()
    known = {variable_name(settings, field) for settings in SETTINGS for field in settings.model_fields}
    assert {name for name in env if name.startswith("SUPERFAN_")} <= known
    exposed = read(DOCKERFILE.read_text())[1][1].all("EXPOSE")[0].value.split()
    fields = IngestSettings.model_fields
    assert exposed == [str(fields["http_port"].default), str(fields["metrics_port"].default)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="superfan-tests-image-"))
    subprocess.run(["sh", str(ROOT / "deploy/compose/prepare.sh"), str(path / "state")], check=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
async def broker(folder: Path) -> AsyncIterator[str]:
    """An empty Kafka: what makes the topics is under test."""
    fetch_jars(print)
    server = KafkaServer(folder / "kafka", find_java(print), log=folder / "kafka.log")
    await server.start()
    yield server.bootstrap
    await server.kill()


@pytest.fixture(scope="module")
async def databases(folder: Path, pg_server: TestServer) -> AsyncIterator[int]:
    """The users and databases that deploy/compose/postgres-init.sh makes; the server's port."""
    script = (ROOT / "deploy/compose/postgres-init.sh").read_text()
    script = script.replace("/run/secrets/$service-db", f"{folder}/state/passwords/$service")
    server = pg_server.server
    env = {"PATH": f"{server.programs}:/usr/bin:/bin", "POSTGRES_USER": "superfan", "PGPASSWORD": server.password}
    env |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port)}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield server.port
    for service in WITH_DATABASE:
        await pg_server.execute(f"drop database {service} with (force)")
        await pg_server.execute(f"drop role {service}")


class Machine:
    """Runs images as compose.yaml says, with its addresses and folders put on this machine."""

    def __init__(self, folder: Path, bootstrap: str, pg_port: int) -> None:
        self.folder, self.bootstrap, self.pg_port = folder, bootstrap, pg_port
        self.images: dict[str, Image] = {}

    def build(self, service: str) -> Image:
        image = self.images[service] = Image(service, self.folder / service, DOCKERFILE.read_text())
        image.protect()
        return image

    def environment(self, image: Image, entry: str) -> tuple[dict[str, str], int]:
        """Of the service `entry` of compose.yaml; and the metrics port."""
        given = {}
        for name, value in COMPOSE[entry]["environment"].items():
            place = value.replace("kafka:9092", self.bootstrap).replace("postgres:5432", f"127.0.0.1:{self.pg_port}")
            place = place.replace("/etc/superfan", f"{self.folder}/state/config")
            given[name] = re.sub(r"/run/secrets/(\w+)-db", rf"{self.folder}/state/passwords/\1", place)
        prefix = f"SUPERFAN_{image.service.upper()}"
        http_port, metrics_port = free_ports(2)
        ours = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(http_port), "METRICS_PORT": str(metrics_port)}
        return {**image.env, **given, **{f"{prefix}_{name}": value for name, value in ours.items()}}, metrics_port

    def start(self, image: Image, entry: str, role: str) -> tuple[Child, int]:
        env, port = self.environment(image, entry)
        log = self.folder / f"{image.service}-{role}.log"
        return Child.spawn(f"{image.service} {role}", image.command(role), log=log, env=env, cwd=image.workdir), port

    async def to_its_end(self, image: Image, entry: str, role: str) -> None:
        """A role that ends by itself."""
        child, _ = self.start(image, entry, role)
        assert child.popen is not None
        code = await asyncio.to_thread(child.popen.wait, 60)
        assert code == 0, f"{child.name}: {child.last_lines(20)}"

    async def until_ready_then_stop(self, image: Image, entry: str, role: str) -> None:
        """Started, ready, healthy as Docker would ask, SIGTERM, exit code 0."""
        child, port = self.start(image, entry, role)
        assert child.popen is not None
        try:
            async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
                ready, answer = False, "no answer"
                while not ready:
                    child.check()
                    await asyncio.sleep(0.1)
                    with contextlib.suppress(httpx.TransportError):
                        response = await client.get(f"http://127.0.0.1:{port}/readyz")
                        ready, answer = response.status_code == 200, response.text
            (health,) = image.final.all("HEALTHCHECK")
            command = [part.replace("9090", str(port)) for part in health.exec_form]
            await asyncio.to_thread(subprocess.run, command, env=image.env, check=True, timeout=30)
            child.popen.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(child.popen.wait, 60)
            assert code == 0, f"{child.name}: {child.last_lines(20)}"
        except TimeoutError:
            raise AssertionError(f"{child.name}: {answer}\n{child.last_lines(20)}") from None
        finally:
            await child.kill()


@pytest.fixture(scope="module")
async def machine(folder: Path, broker: str, databases: int) -> AsyncIterator[Machine]:
    it = Machine(folder, broker, databases)
    yield it
    for image in it.images.values():
        image.unprotect()


async def test_every_role_of_every_image_runs(machine: Machine) -> None:
    images = {service: machine.build(service) for service in SERVICES}
    before = {service: image.files() for service, image in images.items()}

    entry = COMPOSE["topics"]
    env, _ = machine.environment(images["profile"], "topics")
    subprocess.run(entry["entrypoint"], env=env, cwd=images["profile"].workdir, check=True, timeout=60)
    async with admin_client(machine.bootstrap) as admin:
        assert set(await admin.list_topics()) == {topic.name for topic in TOPICS}
    await asyncio.gather(
        *(machine.to_its_end(images[service], f"{service}-migrate", "migrate") for service in WITH_DATABASE)
    )
    for group in (("ingest", "profile", "segmentation"), ("engagement", "rewards")):
        await asyncio.gather(
            *(
                machine.until_ready_then_stop(images[service], service, role)
                for service in group
                for role in (("api",) if service == "ingest" else ("api", "worker", "all"))
            )
        )
    assert {service: image.files() for service, image in images.items()} == before, "something was written"
    for service, image in images.items():
        assert sorted(os.listdir(image.workdir)) == ["libs", "services"]
        assert [os.listdir(image.workdir / name) for name in ("libs", "services")] == [["common"], [service]]
        assert not list(image.workdir.rglob("*.md"))


async def test_databases_are_closed_to_the_other_services(folder: Path, databases: int) -> None:
    password = (folder / "state/passwords/profile").read_text().strip()
    connection = await asyncpg.connect(f"postgresql://profile:{password}@127.0.0.1:{databases}/profile")
    await connection.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
        await asyncpg.connect(f"postgresql://profile:{password}@127.0.0.1:{databases}/rewards")


def test_a_forgotten_folder_is_noticed(machine: Machine) -> None:
    """The proof above would not hold if processes found the sources of this repository."""
    line = "COPY libs/common /app/libs/common"
    text = DOCKERFILE.read_text()
    assert line in text
    image = Image("profile", machine.folder / "forgetful", text.replace(line, ""))
    env, _ = machine.environment(image, "profile")
    command = image.command("migrate")
    done = subprocess.run(command, env=env, cwd=image.workdir, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No module named 'libs'" in done.stderr
