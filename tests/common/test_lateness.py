"""How late a consumer may be: 0 when nothing is behind, else rather too much, and nothing of what others hold."""

from libs.common.consumer.lateness import LOOK_SECONDS, Lateness

LATER = 100.0


def seconds(lateness: Lateness, now: float, *, holding: bool = False) -> float:
    return lateness.seconds(now, holding=holding)


def test_without_partitions_nothing_is_late() -> None:
    assert seconds(Lateness(), LATER) == 0
    assert seconds(Lateness(), LATER, holding=True) == 0


def test_what_came_here_counts_from_then_until_more_is_known() -> None:
    lateness = Lateness()
    lateness.hold([1, 2], 10)
    assert seconds(lateness, 11) == 1
    lateness.at_end(1, 12)
    lateness.at_end(2, 12)
    assert seconds(lateness, 12.5) == 0
    lateness.hold([1, 2, 3], 12.5)
    assert seconds(lateness, 13) == 0.5


def test_records_in_hand_count_from_the_last_look_that_showed_nothing_more() -> None:
    lateness = Lateness()
    lateness.hold([1], 10)
    lateness.at_end(1, 20)
    lateness.took(1)
    assert seconds(lateness, 21) == 1
    lateness.applied(1, 20.7)
    assert round(seconds(lateness, 22), 6) == 1.3, "there may be more behind it"
    lateness.at_end(1, 22)
    assert seconds(lateness, 22.3) == 0


def test_a_backlog_counts_from_the_last_record_that_was_applied() -> None:
    lateness = Lateness()
    lateness.hold([1, 2], 1000)
    lateness.applied(1, 400)
    assert seconds(lateness, 1001) == 1, "no record of before it came here is known to wait"
    lateness.applied(1, 1000.5)
    lateness.at_end(2, 1001)
    assert seconds(lateness, 1001.5) == 1
    lateness.applied(1, 900)
    assert seconds(lateness, 1001.5) == 1, "never back"


def test_it_grows_while_nobody_looks() -> None:
    lateness = Lateness()
    lateness.hold([1], 10)
    lateness.at_end(1, 10)
    assert seconds(lateness, 10 + LOOK_SECONDS - 0.1) == 0
    assert seconds(lateness, 10 + LOOK_SECONDS) == LOOK_SECONDS
    assert seconds(lateness, 11, holding=True) == 1


def test_what_went_elsewhere_is_forgotten() -> None:
    lateness = Lateness()
    lateness.hold([1, 2], 10)
    lateness.at_end(2, 19)
    lateness.hold([2], 19)
    assert seconds(lateness, 20) == 0
    lateness.applied(1, 5)
    lateness.hold([], 30)
    assert seconds(lateness, LATER, holding=True) == 0
    lateness.hold([2], 40)
    assert seconds(lateness, 41) == 1, "it counts anew"
