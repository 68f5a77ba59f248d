"""The broker of the launcher, started, stopped, killed and wiped for real."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.cli.local.jars import locked_jars
from libs.cli.local.kafka import KafkaServer
from libs.cli.local.processes import LaunchError
from libs.common.events import TOPICS
from libs.common.kafka import end_offsets
from tests.support.kafka import TestBroker


@pytest.fixture(scope="module")
async def broker() -> AsyncIterator[TestBroker]:
    """A broker of this module's own, since these tests stop it."""
    broker = TestBroker()
    await broker.start()
    yield broker
    await broker.close()


async def test_topics_are_declared_with_their_partitions(broker: TestBroker) -> None:
    ends = await end_offsets(broker.bootstrap, [topic.name for topic in TOPICS])
    assert set(ends) == {(topic.name, partition) for topic in TOPICS for partition in range(topic.partitions)}


async def test_a_stop_and_a_kill_keep_the_cluster(broker: TestBroker) -> None:
    before = await broker.cluster_id()
    await broker.stop()
    await broker.start()
    assert await broker.cluster_id() == before
    await broker.kill()
    await broker.start()
    assert await broker.cluster_id() == before


async def test_a_wipe_makes_another_cluster_on_the_same_port(broker: TestBroker) -> None:
    before, address = await broker.cluster_id(), broker.bootstrap
    await broker.wipe()
    await broker.start()
    assert broker.bootstrap == address
    assert await broker.cluster_id() != before
    assert set((await end_offsets(broker.bootstrap, [topic.name for topic in TOPICS])).values()) == {0}


async def test_a_second_broker_on_a_taken_port_is_refused(broker: TestBroker) -> None:
    second = KafkaServer(broker.folder / "second", broker.java, broker.folder / "second.log", port=broker.port)
    with pytest.raises(LaunchError, match=r"kafka ended with exit code 1|another Kafka broker"):
        await second.start()
    await second.stop()


def test_a_changed_jar_is_noticed(tmp_path: Path) -> None:
    jar = locked_jars()[0]
    (tmp_path / jar.name).write_bytes(b"something else")
    assert not jar.intact(tmp_path)


async def test_a_folder_of_a_newer_version_is_refused(broker: TestBroker, tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    folder.mkdir()
    (folder / "version").write_text("9.0.1")
    with pytest.raises(LaunchError, match=r"written by Apache Kafka 9\.0\.1"):
        await KafkaServer(folder, broker.java, folder / "log").start()
