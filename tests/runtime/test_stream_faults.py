"""A thousand frames through a Stream with a network made for video, while everything goes wrong now and then."""

import math

import numpy as np
import pytest
import torch

from unrain import Engine, Stream, load
from unrain.engine.runtime.stream.status import Outcome

SIZE = (24, 40)
FRAMES, EVERY = 1000, 7  # so many frames, and a fault in every so many
FAULTS = {  # what is done to a frame: what is said of it
    "picture": "values that are no numbers",
    "error": "RuntimeError in the network",
    "white": "the picture changed beyond belief",
    "size": "a frame of another size",
    "type": "not a uint8 frame",
    "state": None,  # the picture is whole, what it leaves is not
    "gap": None,
    "cut": None,
}


class Faulty:
    """An engine that does what it is told with its next picture, or with the state that it leaves."""

    def __init__(self, engine):
        self.engine, self.stages, self.device, self.made_for_video = engine, engine.stages, engine.device, True
        self.fault = None

    def steps(self, x, state=None, image=None):
        if self.fault == "error":
            raise RuntimeError("injected")
        for step in self.engine.steps(x, state, image):
            with torch.inference_mode():
                if self.fault == "picture":
                    step.image[..., 3, 5] = math.nan
                elif self.fault == "white":
                    step = step._replace(image=1 - x.round())
                elif self.fault == "state":
                    step.state.hidden[..., 1, 2] = math.nan
            yield step


def scenes(rng):
    """Two that no motion could turn into one another."""
    bright = rng.integers(120, 250, (*SIZE, 3)).astype(np.int16)
    return bright, bright // 4


@pytest.mark.parametrize("name", ["wiper-s", pytest.param("wiper", marks=pytest.mark.slow)])
def test_a_thousand_frames(name):
    model = load(name)
    engine = Faulty(Engine(model, backend="eager", precision="fp32", threads=1))
    rng = np.random.default_rng(0)
    shown, other = scenes(rng)
    kinds, state, seconds = list(FAULTS), None, 0.0
    with Stream(engine, SIZE, math.inf, gap_ms=500, after=FRAMES, limit=0.45) as stream, torch.inference_mode():
        for number in range(FRAMES):
            fault = kinds[number // EVERY % len(kinds)] if number % EVERY == EVERY - 1 else None
            engine.fault = fault
            seconds += 5.0 if fault == "gap" else 1 / 30
            if fault == "cut":
                shown, other = other, shown
            frame = (shown + rng.integers(-2, 3, shown.shape)).clip(0, 255).astype(np.uint8)
            given = {"size": frame[1:], "type": frame.astype(np.float32)}.get(fault, frame)
            out, status = stream.process(given, timestamp=seconds)
            reason = FAULTS.get(fault)
            assert status.reason == reason and status.reset == {"gap": "a gap in time", "cut": "a scene cut"}.get(fault)
            if reason is not None:
                assert out is given and status.outcome == Outcome.PASSTHROUGH
                state = None
                continue
            state = None if status.reset else state
            x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
            picture, state = model.step(x, model.initial_state(x) if state is None else state)
            expected = (picture.clamp(0, 1) * 255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()
            assert status.outcome == Outcome.OK and np.abs(out.astype(int) - expected).max() <= 1, (number, fault)
            state = None if fault == "state" else state
        stats = stream.stats()
    faulty = FRAMES // EVERY
    assert (stats["frames"], stats["carry"]) == (FRAMES, "own")
    assert 0.5 * faulty < stats["passthrough"] < 0.75 * faulty and stats["ok"] + stats["passthrough"] == FRAMES
    assert set(stats["reasons"]) == {reason for reason in FAULTS.values() if reason}
