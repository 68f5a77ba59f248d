"""What `python -m services.<name> …` is asked to do by the services with a database."""

from collections.abc import Sequence
from dataclasses import dataclass

USAGE = "api | worker [--topics NAMES] | all [--topics NAMES] | migrate [--wait] | job rebuild"


@dataclass(frozen=True)
class Role:
    """`topics` are those that a worker consumes. With `wait`, `migrate` only waits until somebody else has migrated."""

    name: str
    topics: tuple[str, ...]
    wait: bool = False


def parse_role(arguments: Sequence[str], topics: Sequence[str]) -> Role | None:
    """The role of a service that consumes `topics`; None when the arguments are not as USAGE says.

    Raises ValueError when a worker is to consume a topic that is not the service's.
    """
    match list(arguments):
        case ["api" | "worker" | "all" | "migrate" as name]:
            return Role(name, tuple(topics))
        case ["worker" | "all" as name, "--topics", names]:
            return Role(name, _choose(names, topics))
        case ["migrate", "--wait"]:
            return Role("migrate", tuple(topics), wait=True)
        case ["job", "rebuild"]:
            return Role("job rebuild", tuple(topics))
    return None


def _choose(names: str, topics: Sequence[str]) -> tuple[str, ...]:
    """Those of `topics` that are named, separated by commas, with or without `superfan.`."""
    wanted = {f"superfan.{name.strip().removeprefix('superfan.')}" for name in names.split(",") if name.strip()}
    if unknown := sorted(wanted - set(topics)):
        raise ValueError(f"--topics: {', '.join(unknown)} is not consumed here; there are {', '.join(topics)}")
    if not wanted:
        raise ValueError(f"--topics names none; there are {', '.join(topics)}")
    return tuple(topic for topic in topics if topic in wanted)
