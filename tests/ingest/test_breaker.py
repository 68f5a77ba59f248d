"""When ingest stops asking Kafka, and when it asks again."""

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain.breaker import Breaker, Limits, State


def is_in(breaker: Breaker, state: State) -> bool:
    return breaker.state is state


def broken(at: float = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(20):
        assert breaker.allow(at)
        breaker.record(False, at)
    assert is_in(breaker, State.OPEN)
    return breaker


def test_too_few_calls_open_nothing() -> None:
    breaker = Breaker()
    for _ in range(19):
        breaker.record(False, 0)
    assert is_in(breaker, State.CLOSED)
    breaker.record(False, 0)
    assert is_in(breaker, State.OPEN)


def test_half_of_the_calls_failing_opens_it_less_does_not() -> None:
    breaker = Breaker()
    for number in range(200):
        breaker.record(number % 5 < 3, number / 100)
    assert is_in(breaker, State.CLOSED)
    for number in range(40):
        breaker.record(False, 2 + number / 100)
    assert is_in(breaker, State.OPEN)


def test_what_lies_before_the_window_is_forgotten() -> None:
    breaker = Breaker()
    for _ in range(19):
        breaker.record(False, 0)
    breaker.record(False, 30)
    assert is_in(breaker, State.CLOSED)


def test_a_busy_process_notices_as_soon_as_a_quiet_one() -> None:
    breaker = Breaker()
    for number in range(10_000):
        breaker.record(True, number / 1000)
    for number in range(100):
        assert is_in(breaker, State.CLOSED)
        breaker.record(False, 11 + number / 1000)
    assert is_in(breaker, State.OPEN)


def test_open_it_lets_nothing_through_until_it_has_cooled_down() -> None:
    breaker = broken(at=100)
    assert not breaker.allow(104.9)
    assert breaker.allow(105)
    assert is_in(breaker, State.HALF_OPEN)


def test_half_open_it_lets_one_through_at_a_time_and_three_good_ones_close_it() -> None:
    breaker = broken()
    for at in (5.0, 6.0, 7.0):
        assert not is_in(breaker, State.CLOSED)
        assert breaker.allow(at)
        assert not breaker.allow(at)
        breaker.record(True, at)
    assert is_in(breaker, State.CLOSED)
    assert breaker.allow(7)
    assert breaker.allow(7)


def test_a_bad_probe_opens_it_for_another_cool_down() -> None:
    breaker = broken()
    assert breaker.allow(5)
    breaker.record(True, 5)
    assert breaker.allow(5.5)
    breaker.record(False, 6)
    assert not breaker.allow(10.9)
    assert breaker.allow(11)


def test_a_call_from_before_it_opened_is_no_probe() -> None:
    breaker = broken()
    breaker.record(True, 1)
    assert is_in(breaker, State.OPEN)
    assert breaker.allow(5)
    for _ in range(3):
        breaker.forget()
        breaker.record(True, 5)
    assert is_in(breaker, State.HALF_OPEN)


def test_a_probe_that_never_ends_gives_way() -> None:
    breaker = broken()
    assert breaker.allow(5)
    assert not breaker.allow(14)
    assert breaker.allow(15)


def test_once_closed_again_it_counts_from_zero() -> None:
    breaker = broken()
    for _ in range(3):
        assert breaker.allow(5)
        breaker.record(True, 5)
    for _ in range(19):
        breaker.record(False, 6)
    assert is_in(breaker, State.CLOSED)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["ask", "good", "bad", "forget"])), max_size=200))
def test_it_never_lets_two_probes_through_nor_stays_shut(steps: list[tuple[float, str]]) -> None:
    limits = Limits(samples=4)
    breaker = Breaker(limits)
    now = 0.0
    probing: float | None = None
    for pause, step in steps:
        now += pause
        before = breaker.state
        if step == "ask":
            allowed = breaker.allow(now)
            if before is State.CLOSED:
                assert allowed
            elif allowed:
                assert probing is None or now - probing >= limits.probe_seconds
                probing = now
        elif step == "forget":
            breaker.forget()
            probing = None
        else:
            breaker.record(step == "good", now)
            probing = None
        if breaker.state is not State.HALF_OPEN:
            probing = None
    assert breaker.allow(now + max(limits.cool_down, limits.probe_seconds))
