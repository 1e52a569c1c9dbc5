"""Every network of ours through its program, by the interpreter: the same pictures and states at every mark, at odd
sizes, from zero and from given states; and as few instructions as the network can come to."""

import pytest
import torch

import unrain
from unrain.engine.program import record
from unrain.engine.program.file import decoded
from unrain.engine.program.interpret import Interpreter

SIZE = 41, 54  # no multiple of anything


def trained_like(name: str, **options):
    """A network whose numbers leave nothing out: no slope, bias or gate is at its default."""
    torch.manual_seed(0)
    model = unrain.build(name, **options).eval()
    for key, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.rand_like(parameter)
        elif "lstm" in key:
            parameter.data.normal_(0, 0.03)
    return model


def close(computed: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within what storing the rewritten weights in float32 costs."""
    return bool((computed.double() - expected).abs().max() <= 2e-6 * max(1.0, float(expected.abs().max())))


# The instructions of a run from zero states.
FAST = [
    ("srn", {}, {"conv": 73, "conv_lstm": 6}),
    ("srn-gru", {"stages": 3}, {"conv": 45, "mul": 3, "lerp": 2}),
    ("srn-x", {"stages": 2}, {"conv": 24, "conv_lstm": 2}),
    ("brn", {"stages": 3}, {"conv": 62, "conv_lstm": 6}),
    ("stagewise", {}, {"conv": 167}),
    (
        "timelapse",
        {},
        {
            "affine": 2,
            "conv": 20,
            "pool": 3,
            "instance_norm": 1,
            "channel_norm": 1,
            "memory_read": 1,
            "copy": 2,
            "sub": 1,
        },
    ),
    ("wiper-s", {}, {"conv": 16, "unshuffle": 1, "clamp": 1}),
    ("mlmcn", {"depths": (1, 2)}, {"affine": 1, "pool": 1, "conv": 28, "conv_lstm": 3, "sub": 3}),
    (
        "mspfn-light",
        {"modules": 1},
        {"affine": 1, "pool": 2, "conv": 40, "conv_lstm": 3, "add": 5, "mean": 3, "dense": 6, "mul": 3},
    ),
]
SLOW = [
    ("srn-direct", {}),
    ("srn-plus", {"stages": 2}),
    ("brn-gru", {"stages": 2}),
    ("crn", {"stages": 2}),
    ("brn-r2x", {"stages": 2}),
    ("brn-x2r", {"stages": 2}),
    ("timelapse", {"norm": False}),
    ("wiper", {}),
    ("wiper-l", {}),
    ("mlmcn", {}),
    ("mlmcn-no-bcm", {"depths": (2, 3)}),
    ("mlmcn-no-rmm", {"depths": (2, 3)}),
    ("mspfn", {"modules": 1}),
    ("mspfn", {"modules": 2, "units": 2, "layout": "fit"}),
    ("mspfn", {"modules": 1, "units": 2, "layout": "repo"}),
    ("mspfn-light", {}),
]


def is_right(name: str, options: dict):
    model = trained_like(name, **options)
    program = decoded(record(model).data)
    interpreter, model = Interpreter(program, torch.float64), model.double()
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x, stages=True)[1] if hasattr(model, "stages") else [model(x)]
    computed = interpreter.marks(x)
    assert len(computed) == len(expected)
    for (picture, _), each in zip(computed, expected, strict=True):
        assert close(picture, each)
    return program


@pytest.mark.parametrize(("name", "options", "counts"), FAST, ids=[name for name, *_ in FAST])
def test_a_program_computes_what_its_network_does(name, options, counts, counted):
    program = is_right(name, options)
    assert counted(program.runs[0]) == counts


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SLOW, ids=[f"{name}-{number}" for number, (name, _) in enumerate(SLOW)])
def test_the_other_sizes_and_variants(name, options):
    is_right(name, options)


def test_every_name_has_a_family_here():
    names = {name for name, *_ in (*FAST, *SLOW)}
    left = [name for name in unrain.models() if name not in names]
    assert all(name.startswith(("mspfn-m", "mlmcn-")) for name in left), left


@pytest.mark.parametrize(
    ("name", "options"), [("srn", {"stages": 2}), ("srn-gru", {"stages": 2}), ("brn", {"stages": 2})]
)
def test_stages_go_on_from_a_state(name, options):
    model = trained_like(name, **options)
    interpreter, model = Interpreter(record(model), torch.float64), model.double()
    x, y = torch.rand(2, 1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        _, state = model.run(x)
        expected, _ = model.run(y, state=state)
    [*_, (_, states)] = interpreter.marks(x)
    for own, each in zip(states, state, strict=True):
        assert close(own, each)
    for (picture, _), each in zip(interpreter.marks(y, run=1, states=state), expected, strict=True):
        assert close(picture, each)


def test_frames_go_on_from_a_state():
    model = trained_like("wiper-s")
    interpreter, model = Interpreter(record(model), torch.float64), model.double()
    x, y = torch.rand(2, 1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        _, state = model.step(x, model.initial_state(x))
        expected, after = model.step(y, state)
    [(_, states)] = interpreter.marks(x)
    [(picture, last)] = interpreter.marks(y, run=1, states=states)
    assert close(picture, expected)
    assert all(close(own, each) for own, each in zip(last, after, strict=True))


def test_a_run_to_a_mark_leaves_out_what_only_others_need():
    """A stagewise run to its end refines the last picture alone."""
    model = trained_like("stagewise", stages=4)
    program = record(model)
    run = program.runs[0]
    only = [each.only_for_mark for each in run.instructions if each.only_for_mark]
    assert only == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    interpreter = Interpreter(program, torch.float64)
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64)
    every = interpreter.marks(x)
    for mark in (1, 3, 4):
        assert torch.equal(interpreter(x, mark=mark), every[mark - 1][0])


def test_cell_states_and_pictures_are_float32_and_hidden_maps_are_not():
    program = record(unrain.build("srn", stages=1, blocks=1))
    storages = {port.channels: [] for port in program.runs[1].ports}
    for port in program.runs[1].ports:
        storages[port.channels].append(port.storage)
    assert storages == {3: [1], 32: [0, 1]}  # the image; h and c
    assert [port.value for port in program.runs[0].ports] == [None, None, None]


def test_shipped_weights_are_stored_in_half():
    program = record(unrain.load("srn"))
    floats = sum(each.numel() for each in program.constants if each.dtype == torch.float32)
    assert floats <= 32 * 3 * 9  # the sum of the two pictures' weights in the first stage
    assert len(program.data) < 420_000


def test_a_cell_state_is_float32_wherever_it_comes_from():
    """One that a convolution made, and one of a memory that convolutions read as well, through a copy."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.out = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(64, 3, 3, padding=1)
            self.cell = unrain.ConvLSTMCell(32, 32)

        def forward(self, x):
            h, (_, c) = self.cell(self.start(x), (self.start(x * 3), self.start(x * 2)))
            return self.out(torch.cat((h, c), 1))

    torch.manual_seed(0)
    model = Net().eval()
    program = record(model)
    run = program.runs[0]
    [cell] = [each for each in run.instructions if each.op == "conv_lstm"]
    assert [run.values[each].storage for each in (*cell.operands, cell.second)] == [0, 0, 1, 1]
    assert [each.op for each in run.instructions].count("copy") == 1
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.allclose(Interpreter(program)(x), model(x), atol=1e-5)


def test_more_maps_than_a_convolution_takes_are_laid_side_by_side():
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 8, 3, padding=1) for _ in range(35))
            self.out = torch.nn.Conv2d(280, 3, 1)

        def forward(self, x):
            return self.out(torch.cat([layer(x) for layer in self.layers], 1))

    torch.manual_seed(0)
    model = Net().eval()
    program = record(model)
    assert max(len(each.operands) for each in program.runs[0].instructions) <= 16
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.allclose(Interpreter(program)(x), model(x), atol=1e-5)
