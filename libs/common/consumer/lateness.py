"""How late one topic's consumer may be, told without asking anybody."""

from collections.abc import Iterable

LOOK_SECONDS = 5.0
"""Kafka is asked for more at least every half second. A partition whose end was reached at the last look is not late
until that look is so long ago."""


class Lateness:
    """An upper bound of the age of the oldest record that the held partitions of a topic have and nobody has applied.

    Of each partition it keeps the instant up to which everything is applied: the append time of the last applied
    record, or the last look at its end that showed nothing more, or when it came here if nothing better is known. From
    there on it counts, so it grows while nothing is applied, for whatever reason, and while Kafka cannot be asked.
    Instants are seconds since 1970; Kafka's clock and this machine's are taken for the same.
    """

    def __init__(self) -> None:
        self._until: dict[int, float] = {}
        self._behind: set[int] = set()

    def hold(self, partitions: Iterable[int], now: float) -> None:
        """These are held now, and no others: what went elsewhere is no longer told of here."""
        held = set(partitions)
        self._behind = (self._behind & held) | (held - self._until.keys())
        self._until = {partition: self._until.get(partition, now) for partition in held}

    def took(self, partition: int) -> None:
        """Records were handed out that are not applied yet."""
        self._behind.add(partition)

    def applied(self, partition: int, appended: float) -> None:
        """Everything is applied up to a record of this append time."""
        if partition in self._until:
            self._until[partition] = max(self._until[partition], appended)

    def at_end(self, partition: int, looked: float) -> None:
        """Everything is applied that was there at this instant."""
        self.applied(partition, looked)
        self._behind.discard(partition)

    def seconds(self, now: float, *, holding: bool) -> float:
        """0 when nothing is behind. `holding`: nothing is fetched at present, so the ends are not known."""
        ages = (
            age
            for partition, until in self._until.items()
            if (age := now - until) >= LOOK_SECONDS or holding or partition in self._behind
        )
        return max(0.0, *ages, 0.0)
