"""The layouts of public projects, compiled: the fused operation runs; results and gradients are within its rule."""

import pytest
import torch
from layouts import (
    MattingGRU,
    OptionalStateCell,
    PeepholeCell,
    RadarGRU,
    RaftGRU,
    RaftSeparableGRU,
    RecurrentDerain,
    SpatioTemporalCell,
    StackedCell,
    TwoSumsCell,
)


def maps(channels, batch=2):
    return torch.randn(batch, channels, 12, 13)


CELLS = {
    "ndrplz": (StackedCell, lambda: (maps(3), (maps(8), maps(8)))),
    "automan000": (PeepholeCell, lambda: (maps(3), maps(8), maps(8))),
    "rpg_e2vid": (OptionalStateCell, lambda: (maps(3), (maps(8), maps(8)))),
    "rpg_e2vid, no state": (OptionalStateCell, lambda: (maps(3),)),
    "OpenSTL": (TwoSumsCell, lambda: (maps(3), maps(8), maps(8))),
    "OpenSTL, 3x3": (lambda: TwoSumsCell(kernel=3), lambda: (maps(3), maps(8), maps(8))),
    "OpenSTL, normed": (lambda: TwoSumsCell(norm=True), lambda: (maps(3), maps(8), maps(8))),
    "PredRNN": (SpatioTemporalCell, lambda: (maps(3), maps(8), maps(8), maps(8))),
    "PReNet": (RecurrentDerain, lambda: (maps(3),)),
}
STAGES = {"PReNet": 3}
IN_ONE = {"ndrplz", "rpg_e2vid", "rpg_e2vid, no state", "OpenSTL, 3x3", "PReNet"}  # 3x3, no peepholes, h at hand


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", CELLS)
def test_cells(name, training, compared, ran):
    make, inputs = CELLS[name]
    given = inputs()
    model = make()
    ours = compared(model, given, training)
    with torch.set_grad_enabled(training):
        counts = ran(ours, *given)
    op = "conv_lstm" if name in IN_ONE and not training else "lstm_gates"
    assert counts == {op: STAGES.get(name, 1)}, ours.report


GRUS = {
    "RAFT": (RaftGRU, lambda: (maps(8), maps(5)), 1),
    "RAFT, separable": (RaftSeparableGRU, lambda: (maps(8), maps(5)), 2),
    "RVM": (MattingGRU, lambda: (maps(8), maps(8)), 1),
    "RVM, a clip": (MattingGRU, lambda: (torch.randn(1, 3, 8, 6, 7),), 3),
    "DGMR": (lambda: RadarGRU().eval(), lambda: (maps(5), maps(8)), 1),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", GRUS)
def test_gated_recurrent_cells(name, training, compared, ran):
    make, inputs, steps = GRUS[name]
    given = inputs()
    ours = compared(make(), given, training)
    with torch.set_grad_enabled(training):
        assert ran(ours, *given) == {"gru_gates": 2 * steps}, ours.report  # the reset is one of its calls
    assert [entry.op for entry in ours.report.fused] == ["gru_gates, gru_reset"] * len(ours.report.fused)


class ResetAfter(torch.nn.Module):
    """As torch.nn.GRU: the reset multiplies what the convolution of h gives; z says how much of h is kept."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Conv2d(5, 24, 3, padding=1)
        self.h = torch.nn.Conv2d(8, 24, 3, padding=1)

    def forward(self, x, h):
        (rx, zx, nx), (rh, zh, nh) = self.x(x).chunk(3, 1), self.h(h).chunk(3, 1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        return (1 - z) * torch.tanh(nx + r * nh) + z * h


class Blended(RaftGRU):
    def forward(self, h, x):
        z = torch.sigmoid(self.convz(torch.cat([h, x], 1)))
        q = torch.tanh(self.convq(torch.cat([h, x], 1)))
        return h + z * (q - h), torch.lerp(h, q, z)


@pytest.mark.parametrize(
    ("make", "inputs", "steps"), [(ResetAfter, (maps(5), maps(8)), 1), (Blended, (maps(8), maps(5)), 0)]
)
def test_other_ways_to_write_a_gru(make, inputs, steps, compared, ran):
    """What two results share is read by something else, and stays."""
    ours = compared(make(), inputs)
    assert ran(ours, *inputs) == ({"gru_gates": steps} if steps else {}), ours.report


class OneBlend(Blended):
    def forward(self, h, x):
        return super().forward(h, x)[0]


def test_a_blend_without_a_reset(compared, ran):
    given = maps(8), maps(5)
    assert ran(compared(OneBlend(), given), *given) == {"gru_gates": 1}
