"""What counts as a bad loss, and what does not."""

import math
import random

import pytest
import torch
from torch import nn

from mamegpt.distributed.processes import World
from mamegpt.training.loss_spikes import find_spike, is_proven, is_sound, weights_not_finite


def noisy(n: int, middle: float = 3.0, spread: float = 0.05) -> list[float]:
    dice = random.Random(0)
    return [dice.gauss(middle, spread) for _ in range(n)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_is_bad_at_once_and_wherever_among_the_new_ones(value: float) -> None:
    assert find_spike([3.5, value, 3.0], 2) == f"loss is {value} at step 2 (last finite value 3.5000)"
    assert find_spike([3.5, value, 3.0], 1) is None  # it was looked at before
    assert find_spike([value], 1) == f"loss is {value} at step 1"
    assert find_spike([value], 1, offset=12) == f"loss is {value} at step 13"


def test_the_fifth_high_loss_in_a_row_is_a_spike() -> None:
    calm = noisy(150)
    assert find_spike(calm + [5.0] * 4, 154) is None
    assert find_spike(calm + [5.0] * 4 + [3.0] + [5.0] * 4, 159) is None
    found = find_spike(calm + [5.0] * 6, 6)
    assert found is not None and found.startswith(
        "loss rose to 5.0000 at step 155: 5 steps in a row far above 2.9985, the"
    )


def test_what_is_within_a_nat_or_within_the_usual_spread_is_no_spike() -> None:
    assert find_spike(noisy(150) + [3.9] * 9, 9) is None
    assert find_spike(noisy(150, spread=0.3) + [5.0] * 9, 9) is None  # 10 spreads are 3 nats
    assert find_spike(noisy(150, spread=0.3) + [9.0] * 9, 9) is not None


def test_there_is_no_spike_before_a_hundred_losses_are_known() -> None:
    assert find_spike(noisy(99) + [9.0] * 5, 104) is None
    assert find_spike(noisy(100) + [9.0] * 5, 105) is not None


def test_an_ordinary_course_has_no_spike() -> None:
    course = [10 * math.exp(-step / 200) + noise for step, noise in enumerate(noisy(2000, 1.0, 0.2))]
    assert find_spike(course, len(course)) is None


def test_weights_that_are_no_numbers_are_named() -> None:
    model = nn.Linear(2, 2)
    assert weights_not_finite(model, 3, World(0, 1, torch.device("cpu"))) is None
    with torch.no_grad():
        model.bias[1] = math.inf
    assert (
        weights_not_finite(model, 3, World(0, 1, torch.device("cpu")))
        == "weights are not finite after step 3, bias first"
    )


def test_a_checkpoint_is_sound_if_the_losses_after_it_are_good() -> None:
    spike = noisy(107) + [5.0] * 5  # the update of step 107 was bad, and 112 is the fifth high loss
    assert [step for step in range(100, 113) if is_sound(step, spike)] == [100, 101, 102]
    assert [step for step in range(100, 113) if is_proven(step, spike)] == [100, 101, 102]
    assert not any(is_sound(step, spike[107:], offset=107) for step in range(112, 120))
    no_number = [*noisy(107), math.nan]
    assert [step for step in range(100, 110) if is_sound(step, no_number)] == list(range(100, 107))
    assert [step for step in range(100, 110) if is_proven(step, no_number)] == [100, 101, 102, 103]


def test_what_is_proven_is_proven_whatever_comes_later() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        course = noisy(130) + [dice.choice([3.0, 4.5, 9.0, math.nan]) for _ in range(20)]
        proven: set[int] = set()
        for n in range(130, len(course) + 1):
            now = {step for step in range(120, n) if is_proven(step, course[:n])}
            assert proven <= now and all(is_sound(step, course[:n]) for step in now)
            proven = now
