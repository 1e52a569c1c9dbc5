"""Strength: half of the rain stays at a half, nothing changes at 0, everything is as it was at 1."""

import copy
import pickle
from math import inf, nan

import numpy as np
import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.fidelity import sample
from unrain.engine.runtime.stream.status import Outcome

SIZE = (40, 72)
PLAIN = {"backend": "eager", "precision": "fp32", "device": "cpu"}


@pytest.fixture
def model():
    network = unrain.build("srn", channels=8, blocks=1, stages=2).eval()
    with torch.no_grad():
        network.branch.f_out.bias.fill_(0.4)  # or a network that was never trained gives black
    return network


@pytest.fixture
def frame():
    return (sample(*SIZE)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tensors(model, dtype, tile):
    x = torch.rand(2, 3, 72, 80).to(dtype)
    derained = unrain.Engine(model, **PLAIN, tile=tile)(x)
    at = {s: unrain.Engine(model, **PLAIN, tile=tile, strength=s)(x) for s in (0, np.float32(0.25), 1)}
    assert torch.equal(at[0], x) and torch.equal(at[1], derained) and not torch.equal(x, derained)
    expected = x.double() + 0.25 * (derained.double() - x.double())
    assert at[0.25].dtype == dtype and (at[0.25] - expected).abs().max() <= 2 * torch.finfo(dtype).eps + 1e-6


@pytest.mark.parametrize("tile", [None, 64])
def test_frames(model, frame, tile):
    frame = np.tile(frame, (2, 2, 1))
    derained = unrain.Engine(model, **PLAIN, tile=tile)(frame)
    at = {s: unrain.Engine(model, **PLAIN, tile=tile, strength=s)(frame) for s in (0, 0.7, 1)}
    assert np.array_equal(at[0], frame) and np.array_equal(at[1], derained)
    assert np.abs(at[0.7] - (frame + 0.7 * (derained.astype(float) - frame))).max() <= 1
    assert not np.array_equal(at[0.7], frame)


@pytest.mark.parametrize("carry", [None, "image", "state"])
def test_streams(model, frame, carry):
    """What goes out is mixed; what is carried to the next frame is not."""
    engine = unrain.Engine(model, **PLAIN)
    frames = [np.roll(frame, shift, 1) for shift in range(3)]

    def out(engine, **options):
        with unrain.Stream(engine, SIZE, deadline_ms=inf, carry=carry, **options) as stream:
            results = [stream.process(each, timestamp=at / 30) for at, each in enumerate(frames)]
        assert [status.outcome for _, status in results] == [Outcome.OK] * 3
        return [picture.astype(float) for picture, _ in results]

    derained, half = out(engine), out(engine, strength=0.5)
    for rainy, all_of_it, some in zip(frames, derained, half, strict=True):
        assert np.abs(some - (rainy + all_of_it) / 2).max() <= 1
    assert np.array_equal(out(engine, strength=0), frames)
    assert np.array_equal(out(engine, strength=1), derained)
    assert np.array_equal(out(unrain.Engine(model, **PLAIN, strength=0.5)), half)  # the engine's own, if none is named
    assert np.array_equal(out(unrain.Engine(model, **PLAIN, strength=0.5), strength=1), derained)


def test_the_known_frame_is_held_against_the_whole_of_the_work(model, frame):
    known = frame, unrain.Engine(model, **PLAIN)(frame)
    with unrain.Stream(unrain.Engine(model, **PLAIN, strength=0.1), SIZE, inf, known=known) as stream:
        assert stream.self_test is None


def test_a_copy_keeps_its_strength(model, frame):
    engine = unrain.Engine(model, **PLAIN, strength=0.5)
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert np.array_equal(other(frame), engine(frame))


def test_a_network_that_gives_no_numbers_is_found_out_at_any_strength(model, frame):
    with torch.no_grad():
        model.branch.f_out.bias.fill_(inf)
    with pytest.raises(UnrainError, match="no numbers"):
        unrain.Engine(model, **PLAIN, strength=0.1)(frame)


@pytest.mark.parametrize("strength", [-0.1, 1.5, nan, "half", None])
def test_what_is_no_share_is_refused(model, strength):
    with pytest.raises(UnrainError, match="strength must be between 0") as raised:
        unrain.Engine(model, **PLAIN, strength=strength)
    assert "\n" not in str(raised.value)
    if strength is not None:
        with pytest.raises(UnrainError, match="strength must be between 0"):
            unrain.Stream(unrain.Engine(model, **PLAIN), SIZE, strength=strength)
