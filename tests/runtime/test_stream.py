"""Stream: what comes out, when, and what it says of it, whatever the network does."""

import gc
import resource
import threading
import time
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
import torch

from unrain import Engine, Stream, build
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends import Step
from unrain.engine.runtime.backends import backend as ways
from unrain.engine.runtime.stream.carry import SHARE
from unrain.engine.runtime.stream.degrade import Budget
from unrain.engine.runtime.stream.scene import Scene
from unrain.engine.runtime.stream.status import Outcome

CPU = torch.device("cpu")
SIZE = (24, 32)
WITH_GRAPHS = [pytest.param(each, marks=pytest.mark.slow) for each in ("onnxruntime", "openvino", "compile")]
PATIENT = 60_000.0  # a deadline that a loaded machine keeps


class Memory(NamedTuple):
    image: torch.Tensor
    h: torch.Tensor


class Network:
    """An engine whose stages each darken the picture by one code, and may be told to misbehave."""

    stages = 3
    device = torch.device("cpu")

    def __init__(self):
        self.sleep = 0.0
        self.fault = None  # called in every stage with its picture; gives the picture
        self.starts = []  # the mean of what every frame started from
        self.gate = None

    def steps(self, x, state=None, image=None):
        self.starts.append("state" if state is not None else "fresh" if image is None else "image")
        for number in range(self.stages):
            if self.gate is not None:
                assert self.gate.wait(30)
            time.sleep(self.sleep)
            picture = x - (number + 1) / 255
            yield Step(picture if self.fault is None else self.fault(picture), Memory(picture, torch.ones(1, 1, 8, 8)))


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def make(network):
    streams = []

    def make(**options):
        streams.append(Stream(network, SIZE, **{"deadline_ms": PATIENT, **options}))
        return streams[-1]

    yield make
    for stream in streams:
        stream.close()


def frame(value=100):
    return np.full((*SIZE, 3), value, np.uint8)


def test_a_frame_goes_through_all_stages(make):
    stream = make()
    out, status = stream.process(frame())
    assert (out == 97).all() and out.dtype == np.uint8
    assert (status.outcome, status.stages, status.reason, status.degraded) == (Outcome.OK, 3, None, False)
    assert 0 < status.milliseconds < PATIENT


@pytest.mark.parametrize("deadline", [float("inf"), 1e300])
def test_a_deadline_of_for_ever_waits_for_the_last_stage(make, deadline):
    out, status = make(deadline_ms=deadline).process(frame())
    assert (out == 97).all() and (status.outcome, status.reason) == (Outcome.OK, None)


def test_it_gives_what_the_engine_gives():
    engine = Engine(build("srn", channels=8, blocks=1), backend="eager", precision="fp32")
    rainy = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    with Stream(engine, (37, 53), PATIENT) as stream:
        out, status = stream.process(rainy)
    assert status.outcome == Outcome.OK
    np.testing.assert_array_equal(out, engine(rainy))


def test_a_network_without_stages_is_one_stage(make, network):
    network.stages = None
    network.steps = lambda x, state=None, image=None: iter([Step(x, None)])
    out, status = make().process(frame())
    assert (out == 100).all() and (status.outcome, status.stages) == (Outcome.OK, 1)


def test_fewer_stages_on_request(make):
    out, status = make(stages=2).process(frame())
    assert (out == 98).all() and (status.outcome, status.stages) == (Outcome.OK, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_ms": 0}, "deadline_ms must be positive"),
        ({"deadline_ms": float("nan")}, "deadline_ms must be positive"),
        ({"carry": "rain"}, "carry must be"),
        ({"stages": 4}, "stages must be between 1 and 3"),
        ({"known": (np.zeros((3, 3, 3), np.uint8),) * 2}, "known must be two uint8 RGB pictures of 24 x 32"),
    ],
)
def test_a_wrong_construction_raises(make, options, message):
    with pytest.raises(UnrainError, match=message):
        make(**options)
    with pytest.raises(UnrainError, match="at least 8 x 8"):
        Stream(Network(), (7, 32))


@pytest.mark.parametrize("options", [{"carry": "image"}, {"carry": "state"}, {"stages": 2}])
def test_a_backend_that_runs_all_stages_at_once_cannot_carry_nor_stop_early(make, network, options):
    network.steps = lambda x, state=None, image=None: iter([Step(x, None)])
    with pytest.raises(UnrainError, match="runs all 3 stages at once"):
        make(**options)
    assert make().process(frame())[1].outcome == Outcome.OK


# Faults


def test_values_that_are_no_numbers(make, network):
    stream, raw = make(after=99), frame()
    for poison in (float("nan"), float("inf"), float("-inf")):
        network.fault = lambda picture, poison=poison: picture.index_fill(3, torch.tensor([5]), poison)
        out, status = stream.process(raw)
        assert out is raw and status.outcome == Outcome.PASSTHROUGH and status.reason == "values that are no numbers"
    network.fault = None
    assert stream.process(raw)[1].outcome == Outcome.OK
    assert stream.stats()["reasons"] == {"values that are no numbers": 3}


def test_weights_that_are_no_numbers_fail_the_self_test_and_every_frame_goes_through():
    model = build("srn", channels=8, blocks=1)
    with torch.no_grad():
        model.branch.f_out.bias.fill_(float("nan"))
    with Stream(Engine(model, backend="eager", precision="fp32"), SIZE, PATIENT) as stream:
        raw = frame()
        for _ in range(3):
            out, status = stream.process(raw)
            assert out is raw and status.outcome == Outcome.PASSTHROUGH
        assert status.reason == "the self-test failed: values that are no numbers"
        assert stream.stats()["passthrough"] == 3 and stream.stats()["self_test"] == "values that are no numbers"


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), SystemExit(), KeyError("x")])
def test_an_exception_in_the_backend(make, network, error):
    def fault(picture):
        raise error

    stream, raw = make(after=99), frame()
    network.fault = fault
    out, status = stream.process(raw)
    assert out is raw and status.outcome == Outcome.PASSTHROUGH
    assert status.reason == f"{type(error).__name__} in the network"
    assert stream.stats()["last_error"].startswith(type(error).__name__)
    network.fault = None
    assert stream.process(raw)[1].outcome == Outcome.OK


def test_a_stage_ten_times_too_slow_gives_what_there_is_and_then_raw_frames(make, network):
    stream, raw = make(deadline_ms=300, after=99), frame()
    network.gate = threading.Event()

    def fault(picture):
        if picture.mean() < 98.5 / 255:  # the second stage hangs until the gate opens
            assert network.gate.wait(30)
        return picture

    network.gate.set()
    assert stream.process(raw)[1].outcome == Outcome.OK
    network.gate.clear()
    network.gate, held = None, network.gate

    def slow(picture):
        if picture.mean() < 98.5 / 255:
            assert held.wait(30)
        return picture

    network.fault = slow
    out, status = stream.process(raw)
    assert (status.outcome, status.stages) == (Outcome.LATE, 1) and (out == 99).all()
    out, status = stream.process(raw)
    assert out is raw and status.reason == "the frame before is still being computed"
    assert status.milliseconds < 300 + 1000
    held.set()
    network.fault = None
    deadline = time.monotonic() + 30
    while stream.process(raw)[1].outcome != Outcome.OK:
        assert time.monotonic() < deadline


def test_a_first_stage_that_is_too_slow_gives_the_raw_frame(make, network):
    stream, raw = make(deadline_ms=200, after=99), frame()
    network.sleep = 2.0
    out, status = stream.process(raw)
    assert out is raw and status.reason == "no stage was ready at the deadline"
    assert 190 < status.milliseconds < 200 + 1000


def test_a_slow_network_is_asked_for_fewer_stages_and_recovers(make, network):
    stream, raw = make(deadline_ms=400, after=2, recover=3), frame()
    network.sleep = 0.18  # two stages fit, three do not
    while not stream.process(raw)[1].degraded:
        assert stream.counters.frames < 20
    assert stream.stats()["stages"] in (1, 2)
    network.sleep = 0.0
    outcomes = [stream.process(raw)[1] for _ in range(40)]
    assert outcomes[-1].outcome == Outcome.OK and outcomes[-1].stages == 3 and not outcomes[-1].degraded


def test_a_frame_that_is_not_one(make):
    stream = make()
    for wrong, reason in (
        (np.zeros((25, 32, 3), np.uint8), "a frame of another size"),
        (np.zeros((*SIZE, 4), np.uint8), "a frame of another size"),
        (np.zeros((*SIZE, 3), np.float32), "not a uint8 frame"),
        (None, "not a uint8 frame"),
    ):
        out, status = stream.process(wrong)
        assert out is wrong and (status.outcome, status.reason) == (Outcome.PASSTHROUGH, reason)
    assert stream.process(frame())[1].outcome == Outcome.OK


@pytest.mark.parametrize("view", [lambda a: a[:, ::-1], lambda a: np.asfortranarray(a)])
def test_any_strides_will_do(make, view):
    pictures = np.random.default_rng(0).integers(3, 256, (*SIZE, 3), dtype=np.uint8)
    seen = view(pictures)
    seen.flags.writeable = False
    np.testing.assert_array_equal(make().process(seen)[0], seen - 3)


def test_a_picture_changed_beyond_belief(make, network):
    stream, raw = make(limit=0.2, after=99), frame()
    network.fault = torch.ones_like
    out, status = stream.process(raw)
    assert out is raw and status.reason == "the picture changed beyond belief"


def test_repeated_faults_rest_the_network_and_one_try_brings_it_back(make, network):
    stream, raw = make(after=3, recover=4), frame()
    network.fault = lambda picture: picture * float("nan")
    reasons = [stream.process(raw)[1].reason for _ in range(3)]
    assert set(reasons) == {"values that are no numbers"}
    runs = len(network.starts)
    assert {stream.process(raw)[1].reason for _ in range(4)} == {"resting after repeated faults"}
    assert len(network.starts) == runs
    network.fault = None
    assert [stream.process(raw)[1].stages for _ in range(4)] == [1, 1, 1, 1]
    assert stream.process(raw)[1].stages == 2


# What is carried


@pytest.mark.parametrize("carry", ["image", "state"])
def test_carry_goes_on_until_something_breaks_it(make, network, carry):
    stream = make(carry=carry, gap_ms=500, after=99)
    network.starts.clear()

    def starts(value, at, shape=SIZE):
        before = len(network.starts)
        status = stream.process(np.full((*shape, 3), value, np.uint8), timestamp=at)[1]
        return (network.starts[before:] or [None])[0], status.reset

    assert starts(100, 0.0) == ("fresh", None)
    assert starts(101, 0.1) == (carry, None)
    assert starts(101, 0.9) == ("fresh", "a gap in time")  # a camera that stalled
    assert starts(101, 1.0) == (carry, None)
    assert starts(101, 0.5) == ("fresh", "a gap in time")  # a clock that went back
    assert starts(200, 0.6) == ("fresh", "a scene cut")
    assert starts(200, 0.7) == (carry, None)
    assert starts(200, 0.8, (8, 8)) == (None, None)
    assert starts(200, 0.9) == ("fresh", None)
    network.fault = lambda picture: picture * float("nan")
    starts(200, 1.0)
    network.fault = None
    assert starts(200, 1.1) == ("fresh", None)
    assert stream.stats()["resets"] == {"a gap in time": 2, "a scene cut": 1}


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), "soon", object()])
def test_a_timestamp_that_is_none_spoils_its_own_frame_alone(make, network, bad):
    stream = make(carry="image", gap_ms=500, after=99)
    network.starts.clear()
    statuses = [stream.process(frame(), timestamp=at)[1] for at in (0.0, 0.1, bad, 0.3, 0.4, 2.0)]
    assert [status.outcome for status in statuses] == [Outcome.OK] * 6
    assert network.starts == ["fresh", "image", "fresh", "image", "image", "fresh"]
    assert stream.stats()["resets"] == {"a timestamp that is no number": 1, "a gap in time": 1}


@pytest.mark.parametrize("backend", ["eager", "fused", pytest.param("onnxruntime", marks=pytest.mark.slow)])
@pytest.mark.parametrize("carry", ["image", "state"])
def test_carry_is_what_the_network_does_by_hand(backend, carry):
    model = build("srn", channels=8, blocks=1).eval()
    reason = ways(backend).available(CPU) or ways(backend).can_run(model, "fp32", CPU)
    if reason is not None:
        pytest.skip(reason)
    engine = Engine(model, backend=backend, precision="fp32", device="cpu")
    rng = np.random.default_rng(0)
    base = rng.integers(40, 200, (*SIZE, 3))
    frames = [(base + rng.integers(0, 10, base.shape)).astype(np.uint8) for _ in range(3)]
    state, image = None, None
    with Stream(engine, SIZE, PATIENT, carry=carry, stages=2) as stream, torch.inference_mode():
        for number, rainy in enumerate(frames):
            out, status = stream.process(rainy, timestamp=number / 30)
            x = torch.from_numpy(rainy).permute(2, 0, 1)[None] / 255
            start = state if state is not None and carry == "state" else model.initial_state(x)
            if carry == "image" and image is not None:
                start = start._replace(image=image)
            if carry == "state" and state is not None:
                start = start._replace(image=x, h=SHARE * state.h, c=0 * state.c)
            images, state = model.run(x, 2, start)
            image = images[-1]
            expected = (image.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
            assert status.outcome == Outcome.OK and status.reset is None
            assert np.abs(out.astype(int) - expected).max() <= (0 if backend == "eager" else 1)  # of 255


@pytest.mark.parametrize("name", ["brn", "srn-gru", "brn-gru"])
def test_the_state_of_every_cell_can_be_carried(name):
    model = build(name, channels=8)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("f_out.bias"):
                parameter.fill_(0.4)  # or a network that was never trained gives black
    engine = Engine(model, backend="eager", precision="fp32", stages=2)
    with Stream(engine, SIZE, PATIENT, carry="state") as stream:
        first, second = (stream.process(frame(), timestamp=at)[0].copy() for at in (0.0, 0.1))
        assert stream.stats()["ok"] == 2 and (first != second).any()


def test_a_network_without_memory_has_no_state_to_carry():
    engine = Engine(build("stagewise", channels=8), backend="eager", precision="fp32")
    with pytest.raises(UnrainError, match="keeps no memory"):
        Stream(engine, SIZE, PATIENT, carry="state")
    with Stream(engine, SIZE, PATIENT, carry="image") as stream:
        assert [stream.process(frame(), timestamp=at)[1].outcome for at in (0.0, 0.1)] == [Outcome.OK] * 2


@pytest.mark.parametrize("backend", ["eager", "fused", *WITH_GRAPHS])
def test_a_network_made_for_video_carries_its_own_state_as_it_left_it(backend):
    torch.manual_seed(0)
    model = build("wiper-s").eval()
    if (reason := ways(backend).available(CPU)) is not None:
        pytest.skip(reason)
    engine = Engine(model, backend=backend, precision="fp32")
    rng = np.random.default_rng(0)
    base = rng.integers(40, 200, (*SIZE, 3))
    frames = [(base + rng.integers(0, 10, base.shape)).astype(np.uint8) for _ in range(4)]
    with Stream(engine, SIZE, PATIENT, gap_ms=500) as stream, torch.inference_mode():
        assert stream.stats()["carry"] == "own"
        state = None
        for number, rainy in enumerate(frames):
            at = number / 30 + (5 if number == 3 else 0)  # the last one comes after a gap
            out, status = stream.process(rainy, timestamp=at)
            x = torch.from_numpy(rainy).permute(2, 0, 1)[None] / 255
            state = model.initial_state(x) if state is None or number == 3 else state
            picture, state = model.step(x, state)
            expected = (picture.clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
            assert status.outcome == Outcome.OK and status.reset == ("a gap in time" if number == 3 else None)
            assert np.abs(out.astype(int) - expected).max() <= (0 if backend == "eager" else 1)  # of 255


def test_a_video_network_that_is_told_to_carry_nothing_starts_every_frame_afresh():
    model = build("wiper-s").eval()
    engine = Engine(model, backend="eager", precision="fp32")
    with Stream(engine, SIZE, PATIENT, carry="nothing") as stream:
        first, second = (stream.process(frame(), timestamp=at)[0].copy() for at in (0.0, 0.1))
        assert stream.stats()["carry"] == "nothing" and (first == second).all()
    with Stream(engine, SIZE, PATIENT) as stream:
        first, second = (stream.process(frame(), timestamp=at)[0].copy() for at in (0.0, 0.1))
        assert (first != second).any()


def test_a_video_network_on_a_backend_without_states_is_told_and_still_runs(caplog):
    model = build("wiper-s").eval()
    engine = Engine(model, backend="eager", precision="fp32")
    steps = engine.steps
    engine.steps = lambda x, state=None, image=None: (step._replace(state=None) for step in steps(x))
    with Stream(engine, SIZE, PATIENT) as stream:
        assert stream.process(frame())[1].outcome == Outcome.OK
        assert stream.stats()["carry"] == "nothing"
    assert "every frame starts afresh" in caplog.text


def test_scene_cuts_are_told_from_motion():
    scene = Scene(64, 64, gap=1.0)
    rng = np.random.default_rng(0)
    waves = 128 + 100 * np.sin(np.arange(320) / 9) * np.sin(np.arange(64) / 7)[:, None]
    world = np.clip(waves[..., None] + rng.normal(0, 5, (64, 320, 3)), 0, 255).astype(np.uint8)
    for number in range(20):  # a pan
        assert scene.change(world[:, 2 * number : 2 * number + 64], number / 30) is None
    dark = world[:, 200:264] // 4
    assert scene.change(dark, 20 / 30) == "a scene cut"
    for number in range(21, 25):
        assert scene.change(dark, number / 30) is None
    assert scene.change(dark // 2 + 40, 25 / 30) == "a scene cut"  # small, but many times what was usual


# Degradation


def test_budget_falls_to_what_was_reached_and_climbs_slowly():
    budget = Budget(6, after=3, recover=10)
    for _ in range(2):
        budget.failed(4)
    budget.succeeded()  # faults must be in a row
    for _ in range(2):
        budget.failed(4)
    assert budget.stages == 6
    budget.failed(0)
    assert budget.stages == 4 and budget.degraded
    for _ in range(9):
        budget.succeeded()
    assert budget.stages == 4
    budget.succeeded()
    assert budget.stages == 5


def test_budget_waits_longer_after_every_relapse():
    budget = Budget(2, after=1, recover=2)
    waits = []
    budget.failed(1)
    for _ in range(7):
        wait = 0
        while budget.stages == 1:
            budget.succeeded()
            wait += 1
        budget.failed(1)
        waits.append(wait)
    assert waits == [2, 4, 8, 16, 32, 32, 32]


# Numbers


def test_counters_and_quantiles_are_readable_at_any_time(make, network):
    stream = make()
    assert stream.stats()["frames"] == 0
    heart = stream.heartbeat
    for _ in range(10):
        stream.process(frame())
    network.fault = torch.ones_like
    stats = stream.stats()
    assert (stats["frames"], stats["ok"], stats["late"], stats["passthrough"]) == (10, 10, 0, 0)
    latency = stats["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert stream.heartbeat == heart + 10 + 30


def test_the_self_test_knows_a_frame(make, network):
    good = make(known=(frame(), frame(97)))
    assert good.stats()["self_test"] == "passed"
    bad = make(known=(frame(), frame(90)))
    assert bad.self_test == "the known frame is off by 31.2 dB"
    raw = frame()
    assert bad.process(raw)[0] is raw
    network.fault = lambda picture: picture - 7 / 255
    assert bad.test_itself() is None
    assert bad.process(raw)[1].outcome == Outcome.OK


def test_the_self_test_notices_a_network_that_is_not_repeatable(make, network):
    network.fault = lambda picture: torch.rand_like(picture)
    assert make().self_test == "two runs on one frame differ"


# Memory


def test_pictures_take_turns_in_three_buffers_and_stay_for_two_calls(make):
    stream = make()
    held, places = [], set()
    for value in range(10, 40):
        held.append((value, stream.process(frame(value))[0]))
        places.add(held[-1][1].__array_interface__["data"][0])
        for number, picture in held[-3:]:
            assert (picture == number - 3).all()
    assert len(places) <= 5


def _flat(frames):
    """Bytes that Python holds, and pages that the process holds, after 100 frames and at the end."""
    engine = Engine(build("srn", channels=8, blocks=1, stages=2), backend="eager", precision="fp32")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(4)]
    with Stream(engine, (48, 64), PATIENT, carry="state") as stream:
        buffers = {id(each) for each in vars(stream._worker).values() if isinstance(each, torch.Tensor)}
        tracemalloc.start()
        try:
            for number in range(frames):
                if number == 100:
                    gc.collect()
                    before = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                stream.process(pictures[number % 4], timestamp=number / 30)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        finally:
            tracemalloc.stop()
        fixed = {"_frame", "_input", "_carried"}
        assert {id(vars(stream._worker)[name]) for name in fixed} <= buffers
        assert stream.stats()["ok"] == frames
    return after[0] - before[0], after[1] - before[1]


def test_memory_is_flat_over_a_thousand_frames():
    python, resident = _flat(1100)
    assert python < 9_216  # one frame is 9216 bytes
    assert resident < 4_096  # KiB


@pytest.mark.gpu
def test_nothing_is_allocated_on_a_gpu_after_the_self_test():
    engine = Engine(build("srn", channels=8, blocks=1), backend="eager", precision="fp32", device="cuda")
    rainy = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with Stream(engine, (48, 64), PATIENT, carry="state") as stream:
        reserved = torch.cuda.memory_reserved()
        for number in range(50):
            out, status = stream.process(rainy, timestamp=number / 30)
            assert status.outcome == Outcome.OK and out is not rainy
        assert torch.cuda.memory_reserved() == reserved


def test_a_closed_or_forgotten_stream_leaves_no_thread(network):
    def threads():
        return sum(thread.name == "unrain-stream" for thread in threading.enumerate())

    before = threads()
    with Stream(network, SIZE, PATIENT):
        assert threads() == before + 1
    assert threads() == before
    stream = Stream(network, SIZE, PATIENT)
    del stream
    gc.collect()
    assert threads() == before


def test_a_closed_stream_says_so_at_once(make):
    stream, raw = make(), frame()
    stream.close()
    before = time.monotonic()
    assert stream.test_itself() == "the stream is closed"
    out, status = stream.process(raw)
    assert out is raw and (status.outcome, status.reason) == (Outcome.PASSTHROUGH, "the stream is closed")
    assert time.monotonic() - before < 10


def test_a_self_test_ends_when_the_stream_is_closed_meanwhile(make, network):
    stream = make()
    network.gate = threading.Event()
    told = []
    asking = threading.Thread(target=lambda: told.append(stream.test_itself()))
    asking.start()
    while not stream._worker.busy_seconds():
        time.sleep(0.01)
    closing = threading.Thread(target=stream.close)
    closing.start()
    network.gate.set()
    closing.join(30)
    asking.join(30)
    assert told == ["the stream is closed"]
