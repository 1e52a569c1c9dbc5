"""What `unrain run` says of its rate: beside the clip's, and which network would keep up."""

import pytest

import unrain
from unrain.cli.eval_all import shipped
from unrain.cli.pace import COSTS, cost, in_words, lighter


@pytest.mark.parametrize("name", shipped())
def test_costs_are_what_the_shipped_networks_take(name):
    assert COSTS[name] == pytest.approx(cost(unrain.load(name)), rel=0.01)


def test_every_shipped_network_has_a_cost_the_dearest_first():
    assert set(COSTS) == set(shipped()) and list(COSTS.values()) == sorted(COSTS.values(), reverse=True)


@pytest.mark.parametrize(
    ("times", "name"), [(1.2, "mspfn-light"), (3, "timelapse"), (5, "wiper"), (100, "wiper-s"), (500, None)]
)
def test_the_most_thorough_that_is_light_enough(times, name):
    assert lighter(674.0, times) == name


def test_in_words():
    slow = {"frames_per_second": 2.5, "clip_frames_per_second": 30.0, "would_keep_up": "wiper"}
    assert in_words(slow) == "2.5 frames/s, 12.0 times slower than the clip's 30; by its operations wiper would keep up"
    assert "no network here is that much lighter" in in_words({**slow, "would_keep_up": None})
    assert in_words({"frames_per_second": 31.0, "clip_frames_per_second": 30.0}) == "31.0 frames/s"
