"""One Engine in many threads, many Engines in many threads: the right picture every time, and nobody's threads lost."""

import copy
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import unrain
from unrain.engine.runtime import Stream
from unrain.engine.runtime.backends import Runner, fused
from unrain.engine.runtime.backends.graph_runner import translated
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.fidelity import sample
from unrain.engine.runtime.turns import limited_to

SIZES = [(8, 8), (24, 40), (33, 9), (16, 16)]
SHIPPED = ("srn", "brn", "stagewise", "mspfn-light", "timelapse")


def quick(name, stages=2):
    """A shipped network, with few stages where it has any."""
    model = unrain.load(name)
    if hasattr(model, "stages"):
        model.stages = stages
    return model


def in_threads(count, work):
    """What `work(number)` gives in each thread; they start together."""
    together = threading.Barrier(count)

    def one(number):
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SHIPPED)
def test_200_calls_from_4_threads_at_mixed_sizes_are_right_to_the_bit(name, precision):
    pictures = [torch.rand(1, 3, *size) for size in SIZES]
    engine = Engine(quick(name), "fused", precision, "cpu")
    assert engine.explain()["precision"] == precision
    alone = copy.deepcopy(engine)
    expected = [alone(x) for x in pictures]

    def work(number):
        order = random.Random(number)
        wrong = 0
        for which in (order.randrange(len(pictures)) for _ in range(50)):
            wrong += not torch.equal(engine(pictures[which]), expected[which])
        return wrong

    assert in_threads(4, work) == [0] * 4


@pytest.mark.parametrize("name", ["srn", "stagewise"])
def test_pictures_of_one_size_do_not_mix_between_threads(name):
    engine = Engine(quick(name), "fused", "fp32", "cpu")
    pictures = [torch.rand(1, 3, 48, 48) for _ in range(3)]
    expected = [engine(x).clone() for x in pictures]
    wrong = in_threads(3, lambda n: sum(not torch.equal(engine(pictures[n]), expected[n]) for _ in range(10)))
    assert wrong == [0] * 3


@pytest.mark.parametrize("backend", ["fused", "eager"])
@pytest.mark.parametrize("name", ["srn", "brn", "stagewise", "timelapse"])
def test_stages_asked_for_from_several_threads_are_those_of_each_ones_picture(name, backend):
    engine = Engine(quick(name, stages=3), backend, "fp32", "cpu")
    pictures = [torch.rand(1, 3, *size) for size in [(16, 24), (16, 24), (24, 16)]]
    expected = [[step.image for step in engine.steps(x)] for x in pictures]

    def work(number):
        for _ in range(3):
            for step, image in zip(engine.steps(pictures[number]), expected[number], strict=True):
                engine(pictures[number - 1])
                assert torch.equal(step.image, image)

    in_threads(3, work)


@pytest.mark.parametrize("name", ["srn", "brn", "srn-gru"])
def test_a_state_goes_on_after_other_calls_on_the_engine(name):
    engine = Engine(unrain.build(name).eval(), "fused", "fp32", "cpu", stages=2)
    first, second, other = (torch.rand(1, 3, *size) for size in [(16, 24), (16, 24), (24, 24)])

    def two_frames(between):
        *_, last = engine.steps(first)
        between()
        return [step.image for step in engine.steps(second, last.state)]

    alone = two_frames(lambda: None)
    disturbed = two_frames(lambda: (engine(first), engine(other), list(engine.steps(second))))
    assert all(map(torch.equal, alone, disturbed))


def test_two_streams_share_an_engine():
    engine = Engine(quick("srn"), "fused", "fp32", "cpu")
    frames = [(sample(32, 40)[0].permute(1, 2, 0).numpy() * 255).astype("uint8")[:, ::step] for step in (1, -1)]
    frames = [frame.copy() for frame in frames]

    def results(number):
        with Stream(engine, (32, 40), deadline_ms=60_000, carry="state") as stream:
            return [stream.process(frames[number], timestamp=t / 30)[0].copy() for t in range(3)]

    alone = [results(0), results(1)]
    together = in_threads(2, results)
    assert all(
        (a == b).all() for ours, theirs in zip(alone, together, strict=True) for a, b in zip(ours, theirs, strict=True)
    )


def test_two_engines_over_one_model_in_two_threads():
    model = quick("timelapse")
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        expected = model(x).clamp(0, 1)

    def work(number):
        engine = Engine(model, "eager", "fp32", "cpu")
        return all(torch.equal(engine(x), expected) for _ in range(5))

    assert all(in_threads(2, work))


def test_the_first_pictures_of_several_threads_choose_once(monkeypatch):
    made = []
    real = fused.make
    monkeypatch.setattr(fused, "make", lambda *args: made.append(args[1]) or real(*args))
    engine = Engine(quick("srn"), "fused", device="cpu")
    x = torch.rand(1, 3, 16, 16)
    one, *others = in_threads(4, lambda _: engine(x))
    assert all(torch.equal(one, other) for other in others)
    assert len(made) == len(set(made))


def test_explain_tells_one_whole_call_while_others_run():
    engine = Engine(quick("srn"), "eager", "fp32", "cpu", tile=64)
    running = threading.Event()
    running.set()

    def work(number):
        if number:
            for _ in range(5):
                engine(torch.rand(1, 3, *((8, 8), (100, 64))[number % 2]))
            running.clear()
            return True
        told = []
        while running.is_set():
            told.append(engine.explain())
        return all((each["tile"] is None) == (each["halo"] is None) and str(each) for each in told)

    assert all(in_threads(3, work))


def test_engines_in_several_threads_translate_their_networks_one_at_a_time():
    models = [unrain.build("srn", channels=4, blocks=1) for _ in range(4)]
    at_work, graphs = threading.Lock(), {}

    def translate(model):
        assert at_work.acquire(blocking=False)
        time.sleep(0.005)
        at_work.release()
        return graphs.setdefault(id(model), object())

    def work(number):
        return all(translated(translate, models[number]) is graphs[id(models[number])] for _ in range(5))

    assert all(in_threads(4, work))


class Meeting(Runner):
    """Ends only when two calls are in it at the same time."""

    concurrent = True

    def __init__(self):
        self.both = threading.Barrier(2)

    def run(self, x):
        self.both.wait(20)
        return x


def test_calls_overlap_on_a_backend_that_says_they_may(monkeypatch):
    monkeypatch.setattr("unrain.engine.runtime.backends.eager.make", lambda *_: Meeting())
    engine = Engine(quick("srn"), "eager", "fp32", "cpu")
    x = torch.rand(1, 3, 16, 16)
    assert all(torch.equal(y, x) for y in in_threads(2, lambda _: engine(x)))


def count_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_a_thread_that_first_meets_torch_while_an_engine_runs_keeps_all_its_threads():
    before, usual = torch.get_num_threads(), count_of_a_new_thread()
    other = usual + 1
    with limited_to(other):
        assert torch.get_num_threads() == other
        assert count_of_a_new_thread() == usual
    assert (torch.get_num_threads(), count_of_a_new_thread()) == (before, usual)


def test_engines_of_different_threads_keep_to_their_own_numbers(monkeypatch):
    from unrain.engine.models.srn_brn import SRN
    from unrain.kernels.registry import thread_count

    seen = {1: set(), 2: set(), 3: set()}
    wanted = threading.local()
    real = SRN.stage

    def stage(self, *args):
        seen[wanted.count].add((torch.get_num_threads(), thread_count()))
        return real(self, *args)

    monkeypatch.setattr(SRN, "stage", stage)
    model, x, usual = quick("srn"), torch.rand(1, 3, 16, 16), count_of_a_new_thread()

    def work(number):
        wanted.count = number + 1
        engine = Engine(model, "eager", "fp32", "cpu", threads=number + 1)
        for _ in range(10):
            engine(x)
        return torch.get_num_threads()

    assert in_threads(3, work) == [usual] * 3
    assert seen == {count: {(count, count)} for count in seen}


def test_an_engine_that_is_copied_or_pickled_works():
    engine = Engine(quick("srn"), "eager", "fp32", "cpu")
    x = torch.rand(1, 3, 16, 16)
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert torch.equal(other(x), engine(x))


@pytest.mark.parametrize("backend", ["eager", "fused"])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_weight_update_is_not_seen_by_an_engine_made_before(name, backend):
    model = quick(name)
    engine, x = Engine(model, backend, "fp32", "cpu"), torch.rand(1, 3, 24, 24)
    before = Engine(copy.deepcopy(model), backend, "fp32", "cpu")(x)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.25)
    assert torch.equal(engine(x), before)
    assert not torch.equal(Engine(model, "eager", "fp32", "cpu")(x), before)


def test_a_weight_update_before_the_first_picture_is_not_seen_either():
    model = quick("srn")
    engine, x = Engine(model, device="cpu"), torch.rand(1, 3, 24, 24)
    before = engine(x)
    later = Engine(model, device="cpu")
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert torch.equal(later(x), before)
