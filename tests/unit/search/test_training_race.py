"""Which shape of a race trains next, and for how long, by what the trainings so far have brought."""

import pytest

from search.race import LEAST_TURN_SECONDS
from search.race import SCOUTS
from search.race import SHORTEST_SECONDS
from search.race import Judged
from search.race import Lane
from search.race import Outcome
from search.race import Place
from search.race import evenly_spread
from search.race import next_training
from search.race import scouts
from search.requests import Goal
from tests.unit.search.recoveries import GOAL


def lane(*costs, origin="uniform"):
    """What is expected of a shape in each number format, the fastest first."""
    return Lane(costs, origin, costs[0])


LANES = [lane(cost) for cost in (0.5, 0.4, 0.3, 0.2, 0.1)]


def outcome(drop, half=20, error=0.0005, **others):
    """What a training has brought; further formats as ``{"in_1": drop}``."""
    curve = tuple((float(second), -drop * 0.5 ** ((second - 10) / half)) for second in range(0, 11, 2))
    drops = {0: drop} | {int(name.removeprefix("in_")): other for name, other in others.items()}
    return Outcome(False, f"w{drop}", {number: Judged(found, error) for number, found in drops.items()}, curve)


def after(*scouted, lanes=LANES, left=140.0, goal=GOAL, **options):
    """The training after the scouts, each of which is (shape, outcome)."""
    outcomes = {(turn, shape): found for turn, (shape, found) in enumerate(scouted)}
    return next_training(lanes, outcomes, 140.0, left, Goal(**goal), **options)


def test_scouts_are_spread_and_train_little():
    order, outcomes = [], {}
    while len(outcomes) < len(scouts(LANES, 1000.0)):
        training = next_training(LANES, outcomes, 1000.0, 1000.0, Goal(**GOAL))
        assert training.seconds == pytest.approx(300 / SCOUTS)
        assert not training.last
        outcomes[training.place] = outcome(0.02)
        order.append(training.place[1])
    assert order == sorted(set(order))
    assert {1, 3} <= set(order)
    families = [
        lane(0.5, origin="search"),
        lane(0.4, origin="search"),
        lane(0.5),
        lane(0.3),
        lane(0.2, origin="depth"),
    ]
    assert {families[shape].origin for shape in scouts(families, 1000.0)} == {"search", "uniform", "depth"}
    assert len(scouts(LANES, 20.0)) == 1


def test_the_race_bisects_on_speed():
    good, bad = outcome(0.002, 1e6), outcome(0.04, 1e6)
    assert after((1, good), (3, bad)).place == (2, 2), "between what meets the goal and what does not"
    assert after((1, good), (3, good)).place == (2, 4), "far below the allowed drop: more aggressive"
    assert after((1, bad), (3, bad)).place[1] == 0, "both lose too much: milder"
    chosen = after((1, good), (3, outcome(0.02, 8)))
    assert chosen.place[1] in {3, 4}, "its curve promises more than a shape between"
    fastest = after((1, good), (3, good), (4, good))
    assert (fastest.place, fastest.weights) == ((3, 4), "w0.002"), "nothing faster is left: the best is trained on"


def test_what_did_not_train_says_how_far_others_may_go():
    lost_little, lost_much = (Outcome(False, formats={0: Judged(drop, 0.0005)}) for drop in (0.002, 0.04))
    assert after((1, lost_little)).place[1] > 1, "a shape that is good untrained is followed by a faster one"
    assert after((3, lost_much)).place[1] < 3
    assert after((1, lost_little)).weights is None
    others = {"goal": {"max_latency_ms": 5.0}}
    assert after((1, lost_little), **others).place[1] != 1
    fastest_held = [(shape, lost_little) for shape in (1, 3, 4)]
    assert after(*fastest_held) is None, "nothing slower than what is held is trained"
    everything = [(shape, lost_little) for shape in range(len(LANES))]
    assert after(*everything) is None


def test_half_of_the_rest_is_trained_until_a_half_is_too_little():
    good, bad = outcome(0.002, 1e6), outcome(0.04, 1e6)
    enough, little = 2 * LEAST_TURN_SECONDS, 2 * LEAST_TURN_SECONDS - 2
    found = [after((1, good), (3, bad), left=left) for left in (enough, little)]
    assert [(training.seconds, training.last) for training in found] == [(enough / 2, False), (little, True)]
    assert (after((1, good), (3, bad), left=20.0).seconds, after((1, good), (3, bad), left=20.0).last) == (20.0, True)
    assert after((1, good), (3, bad), left=0.0) is None
    assert after((1, Outcome(True)), (3, Outcome(True)), (0, Outcome(True)), lanes=LANES[:4]).place[1] == 2


def test_without_a_maximum_drop_the_best_quality_wins():
    good, bad = outcome(0.002, 20), outcome(0.04, 20)
    assert after((1, good), (3, bad), goal={"max_latency_ms": 3.0}).place[1] == 1


def test_without_a_goal_slow_evaluations_leave_time_for_fast_shapes_too():
    lanes = [lane(0.9 - 0.05 * number) for number in range(12)]
    done: dict[Place, Outcome] = {}
    while (training := next_training(lanes, done, 360.0, 360.0, Goal(), most=3)) is not None:
        done[training.place] = outcome(0.01)
        if training.last:
            break
    assert [shape for _, shape in done] == evenly_spread(lanes, 3)
    assert {training.seconds} == {120.0}


def test_without_a_goal_every_speed_gets_the_same_time():
    lanes = [lane(0.9 - 0.05 * number) for number in range(8)]
    lanes += [lane(0.3, origin="depth"), lane(0.2, origin="depth")]
    trained, outcomes = [], {}
    total = 5 * SHORTEST_SECONDS
    while (training := next_training(lanes, outcomes, total, total, Goal())) is not None:
        assert training.seconds == SHORTEST_SECONDS
        assert training.last == (len(trained) == 4)
        outcomes[training.place] = outcome(0.02)
        trained.append(training.place[1])
    assert trained == [1, 4, 6, 8, 9]
    (only,) = evenly_spread([lane(0.5), *(lane(cost, origin="search") for cost in (0.4, 0.3, 0.2))], 1)
    assert only == 2, "the middle one of those that the search has found"
    assert sorted(evenly_spread(lanes, 99)) == list(range(10))


def test_the_only_scout_is_one_that_the_search_has_found():
    places = [(0.3, "uniform"), (0.28, "search"), (0.2, "uniform"), (0.15, "search"), (0.1, "search")]
    lanes = [lane(cost, origin=origin) for cost, origin in places]
    (only,) = scouts(lanes, SHORTEST_SECONDS)
    assert lanes[only].origin == "search"
    assert {lanes[shape].origin for shape in scouts(lanes, 1000.0)} == {"search", "uniform"}


def test_a_shape_that_begins_now_is_not_promised_what_long_training_gave_another():
    lanes = [lane(0.3, origin="search"), lane(0.28, origin="search")]
    curve = tuple((float(second), -0.011 * 0.5 ** ((second - 200) / 60)) for second in range(0, 201, 40))
    trained = Outcome(False, "w", {0: Judged(0.0104, 0.0005)}, curve)
    assert after((0, trained), lanes=lanes, left=60.0).place[1] == 0
    assert after((0, trained), lanes=lanes, left=3000.0).place[1] == 1


def test_the_fall_of_a_curve_towards_the_end_of_its_steps_is_not_promised_again():
    """What a job has seen: 45 s of training, whose last steps are small, say little about three minutes."""
    lanes = [lane(0.15, origin="search"), lane(0.10, origin="search"), lane(0.05, origin="search")]
    curve = ((0.0, -0.088), (9.3, -0.145), (19.1, -0.112), (27.4, -0.081), (36.5, -0.063), (45.3, -0.061))
    assert after((1, Outcome(False, "w", {0: Judged(0.0086, 0.0048)}, curve)), lanes=lanes).place[1] == 1
    assert after((1, Outcome(False, "w", {0: Judged(0.0020, 0.0010)}, curve)), lanes=lanes).place[1] == 2


def test_a_model_that_is_only_probably_good_enough_is_made_sure_of_before_a_faster_one_is_tried():
    lanes = [lane(0.5), lane(0.2), lane(0.17)]
    assert after((1, outcome(0.0096, error=0.001)), lanes=lanes, left=10.0).place[1] == 1
    assert after((1, outcome(0.0060, error=0.001)), lanes=lanes, left=10.0).place[1] == 2


def test_an_untried_origin_promises_less_than_the_tried_one():
    lanes = [lane(0.3, origin="search"), lane(0.25, origin="search"), lane(0.245)]
    assert after((0, outcome(0.006, 1e6)), lanes=lanes).place[1] == 1


def test_a_shape_is_judged_by_the_time_and_the_drop_of_one_number_format():
    lanes = [lane(0.45, 0.6), lane(0.2, 0.30), lane(0.2, 0.25)]
    exact_only = outcome(0.03, 1e6, in_1=0.002)
    assert after((1, exact_only), lanes=lanes).place[1] == 2, "held is 0.30, in the exact format: another has 0.25"
    both = outcome(0.002, 1e6, in_1=0.002)
    assert after((1, both), lanes=lanes).place[1] == 1, "held is 0.20: nothing is faster"


def test_an_untried_shape_is_expected_to_lose_what_others_lost_in_the_same_format():
    lanes = [lane(0.32, 0.30), lane(0.30, 0.40), lane(0.15, 0.39)]
    assert after((1, outcome(0.03, 1e6, in_1=0.004)), lanes=lanes).place[1] == 0, "faster in the exact format"
    assert after((1, outcome(0.002, 1e6, in_1=0.002)), lanes=lanes).place[1] == 2, "faster in the other"


def test_a_format_that_is_slower_than_what_the_search_has_is_no_gain():
    lanes = [lane(0.21, 0.62), lane(0.2, 0.6), lane(0.15, 0.5)]
    trained = outcome(0.08, 1e6, in_1=0.002)
    assert after((1, trained), lanes=lanes).place[1] == 0, "the mildest in the fast format, not a faster exact one"


def test_below_a_ceiling_only_formats_that_are_fast_enough_count():
    lanes = [lane(0.3, 0.5), lane(0.2, 0.4)]
    trained = [(0, outcome(0.02, 1e6, in_1=0.001)), (1, outcome(0.01, 1e6, in_1=0.005))]
    goal = {"max_latency_ms": 3.0}
    assert after(*trained, lanes=lanes, goal=goal).place[1] == 0
    assert after(*trained, lanes=lanes, goal=goal, ceiling=0.35).place[1] == 1
    assert after(*trained, lanes=lanes, goal=goal, ceiling=0.25).place[1] == 1, "the only one below it"
    assert after(*trained, lanes=lanes, goal=goal, ceiling=0.1).place[1] == 1, "the nearest"


@pytest.mark.parametrize("goal", [{}, GOAL])
def test_what_is_measured_meanwhile_adds_no_shape_to_those_that_were_to_train(goal):
    def expected(number):
        return 0.9 - 0.05 * number

    def lanes(tried):
        measured = {number: 0.1 + 0.01 * number for number in tried}
        return [Lane((measured.get(number, expected(number)),), "uniform", expected(number)) for number in range(12)]

    outcomes = {}
    wanted = evenly_spread(lanes(()), 3) if not goal else scouts(lanes(()), 400.0)
    while len(outcomes) < len(wanted):
        training = next_training(
            lanes(shape for _, shape in outcomes), outcomes, 400.0, 400.0, Goal.model_validate(goal), most=3
        )
        outcomes[training.place] = outcome(0.02)
    assert [shape for _, shape in outcomes] == wanted
