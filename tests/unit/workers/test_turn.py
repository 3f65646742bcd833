"""A worker stays with a job for a while, then others get their turn."""

from workers.turn import Turn


def test_a_turn_ends_and_begins_anew() -> None:
    now = 100.0
    turn = Turn(clock=lambda: now)
    assert turn.job(20) is None
    turn.took("a", 20)
    now += 15
    assert turn.job(20) == "a"
    turn.took("a", 20)  # goes on with the same turn
    now += 6
    assert turn.job(20) is None
    turn.took("a", 20)  # nobody else waited: a new turn
    now += 19
    assert turn.job(20) == "a"
    turn.took("b", 20)
    assert turn.job(20) == "b"
    assert turn.job(0) is None
