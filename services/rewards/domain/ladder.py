"""Points of each day of a streak."""

from dataclasses import dataclass

from services.rewards.domain.errors import DefinitionError


@dataclass(frozen=True)
class Ladder:
    """Points of each day of a streak; the last step holds until the end of the cycle. After `cycle` days it begins
    anew; without one it never does.

    Steps may not fall. Then a day that arrives late and joins two streaks never takes anything away, so points can be
    booked as days arrive: each new day books the difference it makes, and the total is the same in any order.
    """

    steps: tuple[int, ...]
    cycle: int | None

    def __post_init__(self) -> None:
        if not self.steps:
            raise DefinitionError("/steps", "needs at least one step")
        for index, step in enumerate(self.steps):
            if step < (self.steps[index - 1] if index else 0):
                raise DefinitionError(f"/steps/{index}", "may not be below the step before, nor below 0")
        if self.cycle is not None and self.cycle < len(self.steps):
            raise DefinitionError("/cycle", f"may not be shorter than the {len(self.steps)} steps")

    def total(self, length: int) -> int:
        """Points of a streak of `length` days."""
        if self.cycle is None:
            return self._climb(length)
        cycles, rest = divmod(length, self.cycle)
        return cycles * self._climb(self.cycle) + self._climb(rest)

    def _climb(self, length: int) -> int:
        return sum(self.steps[:length]) + max(0, length - len(self.steps)) * self.steps[-1]

    def difference(self, before: int, after: int) -> int:
        """What a new day adds between a streak of `before` days that ends and one of `after` days that begins there."""
        return self.total(before + 1 + after) - self.total(before) - self.total(after)

    def next_step(self, streak: int) -> int:
        """Points of the day that follows a streak of `streak` days."""
        return self.total(streak + 1) - self.total(streak)
