"""RFM: how recently, how often and for how much users have bought. Scores and classes are integers throughout.

| class | R F M, 1 = good | name |
|---|---|---|
| 111 | recent, often, much | 重要价值 |
| 101 | recent, seldom, much | 重要发展 |
| 011 | long ago, often, much | 重要保持 |
| 001 | long ago, seldom, much | 重要挽留 |
| 110 | recent, often, little | 一般价值 |
| 100 | recent, seldom, little | 一般发展 |
| 010 | long ago, often, little | 一般保持 |
| 000 | long ago, seldom, little | 一般挽留 |
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

CutKind = Literal["mean", "median", "fixed"]
RfmClass = Literal["111", "101", "011", "001", "110", "100", "010", "000"]

NAMES: dict[RfmClass, str] = {
    "111": "重要价值",
    "101": "重要发展",
    "011": "重要保持",
    "001": "重要挽留",
    "110": "一般价值",
    "100": "一般发展",
    "010": "一般保持",
    "000": "一般挽留",
}


@dataclass(frozen=True, slots=True)
class Cuts:
    """What divides good from not good: R <= r_days, F > f_orders, M > m_minor."""

    r_days: Fraction
    f_orders: Fraction
    m_minor: Fraction


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one measure over all users: its sum, and the two values in the middle (the same one twice when their number
    is odd)."""

    sum: int
    lower_middle: int
    upper_middle: int

    def cut(self, kind: Literal["mean", "median"], users: int) -> Fraction:
        """The exact mean or median; 0 without users."""
        if kind == "median":
            return Fraction(self.lower_middle + self.upper_middle, 2)
        return Fraction(self.sum, users) if users else Fraction(0)
