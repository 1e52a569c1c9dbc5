"""Frames as cameras give them, and what may go wrong with one."""

import ctypes
import threading
import time

import numpy as np
import pytest
import torch
from c_library import AUTO, BGR8, F32, INT8, LATE, NV12, OK, PASSTHROUGH, REFUSED, RGB8, Frame, Library, frame_of

import unrain
from unrain.kernels import frame_to_tensor

HEIGHT, WIDTH = 45, 70


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.integers(0, 150, (height, width, 3)) + 50).astype(np.uint8)


def nv12(height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    luma = random.integers(30, 220, (height, width), dtype=np.uint8)
    return [luma, random.integers(100, 156, ((height + 1) // 2, (width + 1) // 2 * 2), dtype=np.uint8)]


def with_gaps(plane: np.ndarray, gap: int) -> np.ndarray:
    """The same plane, its rows `gap` bytes further apart, with a known byte between them."""
    whole = np.full((plane.shape[0], plane.strides[0] + gap), 77, np.uint8)
    rows = whole[:, : plane.strides[0]].reshape(plane.shape)
    rows[...] = plane
    return rows


@pytest.fixture(scope="module")
def wiper(library, programs):
    program = library.program(programs["wiper-s"])
    yield program
    library.c.unrain_program_close(program)


@pytest.fixture(scope="module")
def srn(library, programs):
    program = library.program(programs["srn"])
    yield program
    library.c.unrain_program_close(program)


def test_bgr_is_rgb_turned_around(library, wiper):
    rgb = picture()
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    with library.context(wiper, library.options(WIDTH, HEIGHT)) as context:
        [expected] = context.derained(rgb)
    with library.context(wiper, library.options(WIDTH, HEIGHT, input=BGR8, output=BGR8)) as context:
        [turned] = context.derained(bgr)
    with library.context(wiper, library.options(WIDTH, HEIGHT, input=BGR8, output=RGB8)) as context:
        assert context([bgr], [bgr]) == OK  # in place, to another format
    np.testing.assert_array_equal(turned[..., ::-1], expected)
    np.testing.assert_array_equal(bgr, expected)


@torch.inference_mode()
def expected_nv12(network, planes: list[np.ndarray]) -> list[np.ndarray]:
    """In float64 behind the network."""
    height, width = planes[0].shape
    x = frame_to_tensor(np.concatenate(planes), format="nv12-bt601")
    r, g, b = network(x)[0, :, :height, :width].clamp(0, 1).double().numpy()
    kr, kb = 0.299, 0.114

    def luma(r, g, b):
        return kr * r + (1 - kr - kb) * g + kb * b

    def halved(plane):
        return plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3))

    y = 16 + 219 * luma(r, g, b)
    r, g, b = halved(r), halved(g), halved(b)
    u = 128 + 224 * (b - luma(r, g, b)) / (2 - 2 * kb)
    v = 128 + 224 * (r - luma(r, g, b)) / (2 - 2 * kr)
    return [y.round(), np.stack((u, v), -1).reshape(height // 2, width).round()]


def test_nv12_to_nv12(library, srn, networks):
    planes = nv12(46, 70)
    options = library.options(70, 46, input=NV12, output=NV12, precision=F32)
    with library.context(srn, options) as context:
        results = context.derained(*planes)
    for result, expected in zip(results, expected_nv12(networks["srn"], planes), strict=True):
        assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(46, 70), (45, 71), (9, 8), (8, 17)])
def test_rows_may_lie_anywhere(size, library, wiper):
    planes = nv12(*size)
    options = library.options(size[1], size[0], input=NV12, output=NV12, carry=0)
    with library.context(wiper, options) as context:
        expected = context.derained(*planes)
        into = [with_gaps(np.zeros_like(plane), gap) for plane, gap in zip(planes, (13, 7), strict=True)]
        assert context([with_gaps(plane, 3) for plane in planes], into) == OK
        upside_down = [np.ascontiguousarray(plane[::-1])[::-1] for plane in planes]
        assert upside_down[0].strides[0] < 0
        assert context(upside_down, upside_down) == OK
    for result, in_place, plane in zip(into, upside_down, expected, strict=True):
        np.testing.assert_array_equal(result, plane)
        np.testing.assert_array_equal(in_place, plane)
        gaps = result.base.reshape(plane.shape[0], -1)[:, plane.shape[1] :]
        assert (gaps == 77).all(), "it wrote between the rows"


def test_strength(library, wiper):
    rgb = picture()
    results = {}
    for strength in (0.0, 0.5, 1.0):
        with library.context(wiper, library.options(WIDTH, HEIGHT, strength=strength)) as context:
            results[strength] = context.derained(rgb)[0].astype(int)
    np.testing.assert_array_equal(results[0.0], rgb)
    assert np.abs(2 * results[0.5] - rgb - results[1.0]).max() <= 2
    assert (results[1.0] != rgb).any()


def test_states_go_from_frame_to_frame_until_a_reset(library, wiper):
    first, second = picture(seed=1), picture(seed=2)
    with library.context(wiper, library.options(WIDTH, HEIGHT)) as context:
        [alone] = context.derained(second)
        library.c.unrain_reset(context.pointer)
        context.derained(first)
        [carried] = context.derained(second)
        library.c.unrain_reset(context.pointer)
        [anew] = context.derained(second)
    np.testing.assert_array_equal(anew, alone)
    assert (carried != alone).any()


def test_a_memory_that_was_not_trained_for_video_is_not_carried(library, srn):
    with library.context(srn, library.options(WIDTH, HEIGHT, stages=2)) as context:
        np.testing.assert_array_equal(context.derained(picture())[0], context.derained(picture())[0])


def test_no_bit_depends_on_the_threads(library, srn):
    results = []
    for threads in (1, 3):
        with library.context(srn, library.options(160, 120, threads=threads, stages=2)) as context:
            results.append(context.derained(picture(120, 160))[0])
    np.testing.assert_array_equal(*results)


class TestDeadline:
    def test_no_stage_in_time(self, library, srn):
        rgb = picture()
        frame = rgb.copy()
        with library.context(srn, library.options(WIDTH, HEIGHT, deadline_us=1)) as context:
            assert context([frame], [frame]) == PASSTHROUGH
            assert context.reason == "no stage was ready at the deadline"
            assert (context.counters.frames, context.counters.passthrough) == (1, 1)
        np.testing.assert_array_equal(frame, rgb)

    def test_an_earlier_stage_in_time(self, library, srn):
        rgb = picture(96, 128)
        stages = []
        for number in range(1, 5):
            with library.context(srn, library.options(128, 96, stages=number, threads=1)) as context:
                stages.append(context.derained(rgb)[0])
                took = context.counters.p50_us
        options = library.options(128, 96, deadline_us=took // 2, threads=1)
        into = np.zeros_like(rgb)
        with library.context(srn, options) as context:
            outcomes = [context([rgb], [into])]
            while outcomes[-1] != LATE and len(outcomes) < 20:  # a busy machine may finish no stage, now and then
                outcomes.append(context([rgb], [into]))
            assert outcomes[-1] == LATE and context.reason == "the deadline passed"
            assert context.counters.late == 1
        assert any((into == stage).all() for stage in stages[:-1])

    def test_time_enough(self, library, srn):
        with library.context(srn, library.options(WIDTH, HEIGHT, deadline_us=10**9)) as context:
            [in_stages] = context.derained(picture())
        with library.context(srn, library.options(WIDTH, HEIGHT)) as context:
            np.testing.assert_array_equal(context.derained(picture())[0], in_stages)


@pytest.mark.parametrize(
    ("bias", "reason"),
    [(float("nan"), "the result is not finite"), (float("inf"), "not finite"), (5.0, "changed beyond belief")],
)
def test_a_result_that_cannot_be_is_not_written(bias, reason, library):
    torch.manual_seed(0)
    network = unrain.build("wiper-s").eval()
    with torch.no_grad():
        network.leave.bias.fill_(bias)
    program = library.program(unrain.record(network).data)
    assert program, library.said
    dark = picture() // 4
    with library.context(program, library.options(WIDTH, HEIGHT)) as context:
        frame = dark.copy()
        assert context([frame], [frame]) == PASSTHROUGH
        assert reason in context.reason
        np.testing.assert_array_equal(frame, dark)
    library.c.unrain_program_close(program)


def test_from_the_start_to_the_first_frame(library, tmp_path):
    """Opening and packing, and what the first frame takes longer than the next: by the clock of this process."""
    path = tmp_path / "wiper.unrain"
    unrain.record(unrain.load("wiper")).save(path)
    planes = nv12(360, 640)
    took = []
    for _ in range(3):
        begin = time.process_time()
        program = library.program(path)
        with library.context(program, library.options(640, 360, input=NV12, output=NV12, threads=1)) as context:
            clocks = [time.process_time()]
            for _ in range(2):
                context.derained(*planes)
                clocks.append(time.process_time())
        library.c.unrain_program_close(program)
        opened, first, second = np.diff([begin, *clocks])
        took.append(opened + max(first - second, 0))
    print(f"{1e3 * min(took):.1f} ms")
    assert min(took) < 0.1


class TestWrongArguments:
    def test_of_a_frame(self, library, wiper):
        options = library.options(WIDTH, HEIGHT, input=NV12, output=RGB8)
        into = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
        planes = nv12(HEIGHT, WIDTH)
        with library.context(wiper, options) as context:
            whole, out = frame_of(planes), frame_of([into])
            narrow, no_chroma = frame_of(planes), frame_of(planes[:1])
            narrow.stride[0] = WIDTH - 1
            for frame, reason in ((narrow, "a stride is smaller"), (no_chroma, "a plane"), (None, "is missing")):
                assert library.c.unrain_process(context.pointer, frame, out) == REFUSED
                assert reason in context.reason
            assert library.c.unrain_process(context.pointer, whole, Frame()) == REFUSED
            assert "to write" in context.reason
            assert context.counters.frames == 0
            assert library.c.unrain_process(context.pointer, whole, out) == OK and context.reason == ""
        assert library.c.unrain_process(None, whole, out) == REFUSED

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"struct_size": 1}, "unrain_default_options"),
            ({"width": 7}, "at least 8 x 8"),
            ({"height": 1 << 20}, "pixels a side"),
            ({"input": 3}, "RGB8, BGR8 or NV12"),
            ({"precision": INT8}, "no int8"),
            ({"precision": 9}, "precision"),
            ({"threads": -1}, "threads"),
            ({"threads": 1 << 20}, "threads"),
            ({"stages": 2}, "stages must be 0 (all) to 1"),
            ({"carry": 2}, "carry"),
            ({"strength": 1.5}, "strength"),
            ({"strength": float("nan")}, "strength"),
            ({"deadline_us": -1}, "deadline_us"),
        ],
    )
    def test_of_a_context(self, changed, reason, library, wiper):
        options = library.options(**{"width": WIDTH, "height": HEIGHT, **changed})
        assert library.c.unrain_context_size(wiper, options, library.message, 256) == 0
        assert reason in library.said and "\n" not in library.said
        assert library.c.unrain_context_open(wiper, options, None, 0) is None


def test_memory_of_the_callers(library, wiper):
    options = library.options(WIDTH, HEIGHT, precision=AUTO)
    size = library.c.unrain_context_size(wiper, options, library.message, 256)
    assert size > 0 and library.said == ""
    memory = np.full(size + 100, 55, np.uint8)
    at = memory.ctypes.data + 1
    assert library.c.unrain_context_init(at, size - 1, wiper, options, library.message, 256) is None
    assert "smaller" in library.said
    pointer = library.c.unrain_context_init(at, size, wiper, options, library.message, 256)
    assert at <= pointer < at + size
    frame = picture()
    with library.context(wiper, options) as context:
        [expected] = context.derained(frame)
    assert library.c.unrain_process(pointer, frame_of([frame]), frame_of([frame])) == OK
    np.testing.assert_array_equal(frame, expected)
    library.c.unrain_context_close(pointer)
    assert memory[0] == 55 and (memory[1 + size :] == 55).all(), "it wrote beyond its memory"


class TestHostileFiles:
    @pytest.mark.parametrize("cut", [0, 7, 255, 256, 5000, -1])
    def test_cut_short(self, cut, library, programs):
        self.refused(library, programs["wiper-s"].read_bytes()[:cut])

    def test_damaged(self, library, programs):
        data = bytearray(programs["wiper-s"].read_bytes())
        for at in (3, 9, 100, 300, len(data) // 2, len(data) - 1):
            data[at] ^= 0x40
            self.refused(library, bytes(data))
            data[at] ^= 0x40

    @pytest.mark.parametrize("path", ["missing.unrain", "."])
    def test_no_file(self, path, library, tmp_path):
        assert library.program(tmp_path / path) is None
        assert library.said and "\n" not in library.said

    def test_a_short_message(self, library):
        message = ctypes.create_string_buffer(b"x" * 20, 20)
        assert library.c.unrain_program_read(b"no", 2, message, 8) is None
        assert len(message.value) == 7 and message.raw[8:] == b"x" * 12

    @staticmethod
    def refused(library: Library, data: bytes) -> None:
        assert library.program(data) is None
        assert library.said and "\n" not in library.said


def test_two_threads_share_a_program(library, srn):
    pictures = [picture(seed=k) for k in range(2)]
    results: list[list[np.ndarray]] = [[], []]

    def work(k: int) -> None:
        with library.context(srn, library.options(WIDTH, HEIGHT, threads=2, stages=2)) as context:
            for _ in range(5):
                results[k].append(context.derained(pictures[k])[0])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        with library.context(srn, library.options(WIDTH, HEIGHT, stages=2)) as context:
            [expected] = context.derained(pictures[k])
        assert len(results[k]) == 5 and all((result == expected).all() for result in results[k])
    assert (results[0][0] != results[1][0]).any()


def test_the_card_and_the_counters(library, wiper):
    assert '"wiper-s"' in library.c.unrain_program_card(wiper).decode()
    assert library.c.unrain_version().decode() == unrain.__version__
    with library.context(wiper, library.options(WIDTH, HEIGHT)) as context:
        for _ in range(5):
            context.derained(picture())
        counted = context.counters
    assert (counted.frames, counted.ok, counted.late, counted.passthrough) == (5, 5, 0, 0)
    assert 0 < counted.p50_us <= counted.p99_us <= counted.max_us
