"""accelerate(): the public layouts of ConvLSTM cells and losses, in our own words here, and the traps among them."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import unrain


class OneConvolutionCell(nn.Module):
    """All four gates from one convolution, split in the order i, f, o, g; `cell(x, (h, c)) -> (h, c)`."""

    order = "ifog"

    def __init__(self, in_channels=3, hidden=4, kernel=3, bias=True):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(in_channels + hidden, 4 * hidden, kernel, padding=kernel // 2, bias=bias)

    def forward(self, current, state):
        h, c = state
        parts = dict(zip(self.order, self.conv(torch.cat([current, h], dim=1)).split(self.hidden, dim=1), strict=True))
        c = parts["f"].sigmoid() * c + parts["i"].sigmoid() * parts["g"].tanh()
        return parts["o"].sigmoid() * c.tanh(), c

    def init_hidden(self, batch, size):
        weight = self.conv.weight
        return tuple(torch.zeros(batch, self.hidden, *size, dtype=weight.dtype, device=weight.device) for _ in "hc")


class StandardOrderCell(OneConvolutionCell):
    order = "ifgo"


class HiddenFirstCell(OneConvolutionCell):
    """[h, x], three arguments, a constant forget bias, the order i, g, f, o: as TensorFlow's cell."""

    def __init__(self):
        super().__init__()
        self.forget_bias = 1.0

    def forward(self, x, h, c):
        i, g, f, o = self.conv(torch.cat([h, x], 1)).chunk(4, 1)
        c = c * torch.sigmoid(f + self.forget_bias) + i.sigmoid() * g.tanh()
        return c.tanh() * o.sigmoid(), c


class EightConvolutionsCell(nn.Module):
    """One convolution per gate and source, peepholes made of zeros when the size is first known; `cell(x, h, c)`."""

    def __init__(self, in_channels=3, hidden=4, kernel=3):
        super().__init__()
        for gate in "ifco":
            setattr(self, f"Wx{gate}", nn.Conv2d(in_channels, hidden, kernel, padding=kernel // 2))
            setattr(self, f"Wh{gate}", nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, bias=False))
        self.Wci = self.Wcf = self.Wco = None

    def forward(self, x, h, c):
        i = torch.sigmoid(self.Wxi(x) + self.Whi(h) + c * self.Wci)
        f = torch.sigmoid(self.Wxf(x) + self.Whf(h) + c * self.Wcf)
        c = f * c + i * torch.tanh(self.Wxc(x) + self.Whc(h))
        o = torch.sigmoid(self.Wxo(x) + self.Who(h) + c * self.Wco)
        return o * torch.tanh(c), c

    def init_hidden(self, batch, hidden, size):
        if self.Wci is None:
            self.Wci, self.Wcf, self.Wco = (torch.zeros(1, hidden, *size) for _ in "ifo")
        return torch.zeros(batch, hidden, *size), torch.zeros(batch, hidden, *size)


class Charbonnier(nn.Module):
    """eps squared inside, mean."""

    def __init__(self, eps=1e-3):
        super().__init__()
        self.eps = eps

    def forward(self, x, y):
        diff = x - y
        return torch.mean(torch.sqrt(diff * diff + self.eps**2))


class CharbonnierSum(nn.Module):
    """eps not squared, sum."""

    def forward(self, prediction, target):
        return torch.sqrt(torch.add(prediction, -target) ** 2 + 1e-6).sum()


class WindowedSSIM(nn.Module):
    """SSIM with a two-dimensional window kept as an attribute and remade when the channels change; zero padding."""

    def __init__(self, window_size=11):
        super().__init__()
        self.window_size, self.channel = window_size, 1
        self.window = self._make(1)

    def _make(self, channel):
        line = torch.exp(-((torch.arange(self.window_size) - self.window_size // 2) ** 2).float() / (2 * 1.5**2))
        line = (line / line.sum())[:, None]
        return (line @ line.t()).expand(channel, 1, -1, -1).contiguous()

    def similarity(self, x, y):
        channel = x.shape[1]
        if channel != self.channel or self.window.dtype != x.dtype or self.window.device != x.device:
            self.window, self.channel = self._make(channel).to(x), channel

        def mean(image):
            return F.conv2d(image, self.window, padding=self.window_size // 2, groups=channel)

        a, b = mean(x), mean(y)
        va, vb, vab = mean(x * x) - a * a, mean(y * y) - b * b, mean(x * y) - a * b
        top = (2 * a * b + 0.01**2) * (2 * vab + 0.03**2)
        return (top / ((a * a + b * b + 0.01**2) * (va + vb + 0.03**2))).mean()

    def forward(self, x, y):
        return self.similarity(x, y)


class SSIMLossOfOurs(WindowedSSIM):
    def forward(self, x, y):
        return 1 - self.similarity(x, y)


# Traps: each looks like something that is recognised


class WithLayerNorm(OneConvolutionCell):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(1, 16)

    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.norm(self.conv(torch.cat([x, h], 1))).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class WithHiddenNorm(OneConvolutionCell):
    """The norm is a function, not a child: only the probe can see it."""

    def forward(self, x, state):
        h, c = super().forward(x, state)
        return F.layer_norm(h, h.shape[1:]), c


class WithOddForgetBias(OneConvolutionCell):
    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = (f + 0.5).sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class WithHardTanh(OneConvolutionCell):
    def forward(self, x, state):
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * F.hardtanh(g)
        return o.sigmoid() * F.hardtanh(c), c


class WithDropout(OneConvolutionCell):
    """The same in eval mode, another thing in training."""

    def forward(self, x, state):
        h, c = super().forward(x, state)
        return F.dropout(h, 0.1, self.training), c


class WithDetachedState(OneConvolutionCell):
    """The same numbers, other gradients."""

    def forward(self, x, state):
        return super().forward(x, (state[0], state[1].detach()))


class WithMemoryOfItsOwn(OneConvolutionCell):
    def forward(self, x, state):
        self.last = super().forward(x, state)
        return self.last


class WithExtraParameter(OneConvolutionCell):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class OneOutput(OneConvolutionCell):
    def forward(self, x, state):
        return super().forward(x, state)[0]


class RangeAwareSSIM(WindowedSSIM):
    """Guesses its range from what it sees, so that pictures in [0, 255] take other constants."""

    def forward(self, x, y):
        scale = 255.0 if x.max() > 128 else 1.0
        return self.similarity(x / scale, y / scale)


class ChannelSumCharbonnier(nn.Module):
    def forward(self, x, y):
        return torch.sqrt(((x - y) ** 2).sum(1) + 1e-6).mean()


class DetachedTarget(Charbonnier):
    def forward(self, x, y):
        return super().forward(x, y.detach())


CELLS = [OneConvolutionCell, StandardOrderCell, HiddenFirstCell, EightConvolutionsCell]
LOSSES = [Charbonnier, CharbonnierSum, WindowedSSIM, SSIMLossOfOurs]
TRAPS = [
    (WithLayerNorm, "more inside: norm"),
    (WithHiddenNorm, "results differ"),
    (WithOddForgetBias, "results differ"),
    (WithHardTanh, "results differ"),
    (WithDropout, "differ from the fused form's in training mode"),
    (WithDetachedState, "gradients flow differently"),
    (WithMemoryOfItsOwn, "changes its own state"),
    (WithExtraParameter, "parameters beside"),
    (OneOutput, "does not return h and c"),
    (RangeAwareSSIM, "differ"),
    (ChannelSumCharbonnier, "neither"),
    (DetachedTarget, "gradients flow differently"),
]


def _step(cell, seed=0, dtype=torch.float32):
    """Two steps of a cell on fixed inputs, with the gradient to its parameters."""
    torch.manual_seed(seed)
    x, h, c = (torch.randn(2, n, 7, 5).to(dtype).requires_grad_() for n in (3, 4, 4))
    h2, c2 = _run_twice(cell, x, h, c)
    (h2.sum() + (c2 * c2).sum()).backward()
    gradients = [p.grad.clone() for p in cell.parameters()]
    cell.zero_grad()
    return [h2.detach(), c2.detach(), x.grad, h.grad, c.grad, *gradients]


def _run_twice(cell, x, h, c):
    if isinstance(cell, EightConvolutionsCell):
        cell.init_hidden(2, 4, (7, 5))
    packed = not isinstance(cell, EightConvolutionsCell | HiddenFirstCell)
    for _ in range(2):
        found = cell(x, (h, c)) if packed else cell(x, h, c)
    return found


def _close(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_swapped_and_do_the_same(kind):
    cell = kind()
    expected, keys = _step(cell), list(cell.state_dict())
    assert unrain.accelerate(cell) is cell
    assert cell.report.entries[0].swapped, str(cell.report)
    assert type(cell) is not kind and isinstance(cell, kind)
    _close(_step(cell), expected)
    assert list(cell.state_dict()) == keys


@pytest.mark.parametrize("kind", CELLS)
def test_the_fused_kernel_is_what_runs(kind, monkeypatch):
    from unrain.engine.nn import accelerate_cells

    ran = []
    for name in ("conv_lstm", "lstm_gates"):
        original = getattr(accelerate_cells, name)
        monkeypatch.setattr(accelerate_cells, name, lambda *a, f=original, n=name: (ran.append(n), f(*a))[1])
    cell = unrain.accelerate(kind())
    ran.clear()
    _step(cell)  # with gradients, on the CPU
    assert ran == ["lstm_gates"] * 2
    ran.clear()
    with torch.no_grad():
        _run_twice(cell, *(torch.randn(2, n, 7, 5) for n in (3, 4, 4)))
    assert ran == ["lstm_gates" if kind is EightConvolutionsCell else "conv_lstm"] * 2


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_swapped_and_do_the_same(kind):
    x, y = torch.rand(2, 3, 24, 20, requires_grad=True), torch.rand(2, 3, 24, 20, requires_grad=True)

    def results(loss):
        value = loss(x, y)
        return [value.detach(), *torch.autograd.grad(value, (x, y))]

    fresh, used = unrain.accelerate(kind()), kind()
    expected = results(used)
    for loss in (fresh, unrain.accelerate(used)):
        assert loss.report.swapped, str(loss.report)
        _close(results(loss), expected)


@pytest.mark.parametrize(("kind", "reason"), TRAPS)
def test_what_differs_is_left_alone_with_its_reason(kind, reason):
    module = kind()
    unrain.accelerate(module)
    assert type(module) is kind
    assert reason in module.report.entries[0].reason, str(module.report)


def test_zero_weights_hide_nothing():
    """Equal weights would make every order of the gates look right."""
    cell = OneConvolutionCell()
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    unrain.accelerate(cell)
    for parameter in cell.parameters():
        nn.init.normal_(parameter)
    plain = OneConvolutionCell()
    plain.load_state_dict(cell.state_dict())
    _close(_step(cell), _step(plain))


class Network(nn.Module):
    """Someone's model: two stacked cells in a loop over time, an encoder, a loss."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
        self.cells = nn.ModuleList([OneConvolutionCell(3, 4), OneConvolutionCell(4, 6, kernel=5, bias=False)])
        self.odd = WithHardTanh()
        self.head = nn.Conv2d(6, 3, 1)
        self.loss = Charbonnier()

    def forward(self, clip):
        states = [cell.init_hidden(clip.shape[0], clip.shape[-2:]) for cell in self.cells]
        for t in range(clip.shape[1]):
            x = self.encoder(clip[:, t])
            for index, cell in enumerate(self.cells):
                x, c = cell(current=x, state=list(states[index]))
                states[index] = (x, c)
        return self.head(x)


@pytest.fixture
def clip():
    return torch.rand(1, 3, 3, 9, 8)


def test_a_whole_model(clip):
    model = Network()
    expected, keys = model(clip), list(model.state_dict())
    before = torch.random.get_rng_state()
    unrain.accelerate(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(model(clip), expected)
    assert list(model.state_dict()) == keys
    assert [entry.name for entry in model.report.entries] == [name for name, _ in model.named_modules()]
    assert [entry.name for entry in model.report.swapped] == ["cells.0", "cells.1", "loss"]
    reasons = {entry.name: entry.reason for entry in model.report.left_alone}
    assert reasons["cells.0.conv"] == "runs inside cells.0" and "differ" in reasons["odd"]
    assert all(reasons.values()) and "cells.1" in str(model.report)


def test_life_after_the_swap(clip, tmp_path):
    """State dicts both ways, deepcopy, pickle, torch.save, train and eval, dtypes."""
    plain = Network()
    model = unrain.accelerate(copy.deepcopy(plain))
    expected = model(clip)
    plain.load_state_dict(model.state_dict())
    model.load_state_dict(plain.state_dict())
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(clip), expected)
        assert type(other.cells[0]) is type(model.cells[0]) is not OneConvolutionCell
        assert other.cells[0].conv is not model.cells[0].conv
        nn.init.zeros_(other.cells[0].conv.weight)  # a copy has weights of its own
    assert torch.equal(model(clip), expected)
    assert torch.equal(model.eval()(clip), model.train()(clip))
    torch.testing.assert_close(model.double()(clip.double()), plain.double()(clip.double()))
    torch.testing.assert_close(
        model.bfloat16()(clip.bfloat16()).float(), plain.bfloat16()(clip.bfloat16()).float(), rtol=0.05, atol=0.02
    )
    assert [entry.swapped for entry in unrain.accelerate(model).report.entries].count(True) == 3


def test_hooks_still_run():
    cell, seen = unrain.accelerate(OneConvolutionCell()), []
    cell.register_forward_hook(lambda *_: seen.append("cell"))
    _step(cell)
    assert seen == ["cell"] * 2
    cell.conv.register_forward_hook(lambda *_: seen.append("conv"))  # the original runs again, so that it is called
    _step(cell)
    assert seen.count("conv") == 2


def test_a_hook_on_the_convolution_from_the_start():
    cell = OneConvolutionCell()
    cell.conv.register_forward_pre_hook(lambda *_: None)
    assert "hooks" in unrain.accelerate(cell).report.entries[0].reason


def test_parametrized_convolutions_are_left_alone():
    cell = OneConvolutionCell()
    nn.utils.parametrizations.weight_norm(cell.conv)
    assert not unrain.accelerate(cell).report.swapped


def test_a_changed_setting_voids_the_proof():
    loss, x = unrain.accelerate(Charbonnier()), torch.rand(1, 3, 4, 4)
    assert loss(x, x).item() == pytest.approx(1e-3)
    loss.eps = 0.5
    assert loss(x, x).item() == pytest.approx(0.5)
    cell = unrain.accelerate(HiddenFirstCell())
    cell.forget_bias = 3.0
    plain = HiddenFirstCell()
    plain.forget_bias = 3.0
    plain.load_state_dict(cell.state_dict())
    _close(_step(cell), _step(plain))


def test_other_calls_run_the_original():
    """Broadcasting stays the original's business, and so do its errors."""
    loss = unrain.accelerate(Charbonnier())
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(loss(x, x[:1]), Charbonnier()(x, x[:1]))
    cell = unrain.accelerate(OneConvolutionCell())
    with pytest.raises(TypeError, match="unpack"):
        cell(x, None)


def test_a_cell_before_its_first_use_runs_the_original():
    cell = unrain.accelerate(EightConvolutionsCell())
    with pytest.raises(TypeError):
        cell(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4, 4))


def test_forward_replaced_on_the_object():
    cell = OneConvolutionCell()
    cell.forward = lambda x, state: state
    assert "replaced" in unrain.accelerate(cell).report.entries[0].reason


def test_modules_of_ours_say_so():
    report = unrain.accelerate(nn.Sequential(unrain.ConvLSTMCell(3, 4), unrain.CharbonnierLoss(), nn.ReLU())).report
    reasons = [entry.reason for entry in report.entries]
    assert reasons[1] == reasons[2] == "runs on unrain's kernels already" and reasons[3] == "nothing to fuse here"


def test_a_model_with_a_report_of_its_own_keeps_it():
    class Model(Network):
        def report(self):
            return "mine"

    assert unrain.accelerate(Model()).report() == "mine"


def test_compiled_in_one_graph():
    torch._dynamo.reset()
    cell, loss = unrain.accelerate(OneConvolutionCell()), unrain.accelerate(Charbonnier())
    x, state = torch.rand(1, 3, 6, 5), (torch.rand(1, 4, 6, 5), torch.rand(1, 4, 6, 5))

    def step(x):
        h, c = cell(x, state)
        return loss(h, c)

    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="aot_eager")(x), step(x))


def test_only_modules():
    with pytest.raises(TypeError, match="module must be"):
        unrain.accelerate(lambda x: x)
