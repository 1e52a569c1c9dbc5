"""Modules as public projects write them, in our own words: the layouts that the rules must know."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class StackedCell(nn.Module):
    """ndrplz's ConvLSTM: one convolution over [x, h], its rows i, f, o, g; `cell(x, (h, c)) -> (h, c)`."""

    def __init__(self, inputs=3, hidden=8, kernel=3, bias=True):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x, state):
        h, c = state
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class PeepholeCell(nn.Module):
    """automan000's ConvLSTM: a convolution for every gate and source, peepholes over the picture."""

    def __init__(self, inputs=3, hidden=8, size=(12, 13)):
        super().__init__()
        for gate in "ifco":
            setattr(self, f"from_x_{gate}", nn.Conv2d(inputs, hidden, 3, 1, 1, bias=True))
            setattr(self, f"from_h_{gate}", nn.Conv2d(hidden, hidden, 3, 1, 1, bias=False))
        for gate in "ifo":
            self.register_parameter(f"see_{gate}", nn.Parameter(torch.randn(1, hidden, *size)))

    def forward(self, x, h, c):
        i = torch.sigmoid(self.from_x_i(x) + self.from_h_i(h) + c * self.see_i)
        f = torch.sigmoid(self.from_x_f(x) + self.from_h_f(h) + c * self.see_f)
        new = f * c + i * torch.tanh(self.from_x_c(x) + self.from_h_c(h))
        o = torch.sigmoid(self.from_x_o(x) + self.from_h_o(h) + new * self.see_o)
        return o * torch.tanh(new), new


class OptionalStateCell(nn.Module):
    """rpg_e2vid's ConvLSTM: the state may be None, zeros are kept by size, gates in, remember, out, cell."""

    def __init__(self, inputs=3, hidden=8, kernel=3):
        super().__init__()
        self.hidden = hidden
        self.zeros = {}
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, x, state=None):
        if state is None:
            key = (x.shape[0], self.hidden, *x.shape[2:])
            if key not in self.zeros:
                self.zeros[key] = (torch.zeros(key, dtype=x.dtype), torch.zeros(key, dtype=x.dtype))
            state = self.zeros[key]
        h, c = state
        come, keep, out, new = self.gates(torch.cat((x, h), 1)).chunk(4, 1)
        come, keep, out = torch.sigmoid(come), torch.sigmoid(keep), torch.sigmoid(out)
        c = (keep * c) + (come * torch.tanh(new))
        return out * torch.tanh(c), c


class TwoSumsCell(nn.Module):
    """OpenSTL's ConvLSTM: one convolution of x and one of h, added gate by gate, with a forget bias, perhaps normed."""

    def __init__(self, inputs=3, hidden=8, kernel=5, norm=False, size=(12, 13)):
        super().__init__()
        self.hidden, self.forget_bias = hidden, 1.0

        def convolution(channels):
            found = [nn.Conv2d(channels, 4 * hidden, kernel, padding=kernel // 2, bias=False)]
            return nn.Sequential(*found, *([nn.LayerNorm([4 * hidden, *size])] if norm else []))

        self.conv_x, self.conv_h = convolution(inputs), convolution(hidden)

    def forward(self, x, h, c):
        xs = torch.split(self.conv_x(x), self.hidden, dim=1)
        hs = torch.split(self.conv_h(h), self.hidden, dim=1)
        i = torch.sigmoid(xs[0] + hs[0])
        f = torch.sigmoid(xs[1] + hs[1] + self.forget_bias)
        c = f * c + i * torch.tanh(xs[2] + hs[2])
        return torch.sigmoid(xs[3] + hs[3]) * torch.tanh(c), c


class SpatioTemporalCell(nn.Module):
    """PredRNN's cell, in OpenSTL too: 7C from x, 4C from h, 3C from the memory m; the output gate sees both states."""

    def __init__(self, inputs=3, hidden=8, kernel=5):
        super().__init__()
        self.hidden, self.forget_bias = hidden, 1.0

        def convolution(channels, rows, size=kernel):
            return nn.Sequential(nn.Conv2d(channels, rows * hidden, size, padding=size // 2, bias=False))

        self.conv_x, self.conv_h, self.conv_m = convolution(inputs, 7), convolution(hidden, 4), convolution(hidden, 3)
        self.conv_o, self.conv_last = convolution(2 * hidden, 1), convolution(2 * hidden, 1, 1)

    def forward(self, x, h, c, m):
        ix, fx, gx, ix2, fx2, gx2, ox = torch.split(self.conv_x(x), self.hidden, dim=1)
        ih, fh, gh, oh = torch.split(self.conv_h(h), self.hidden, dim=1)
        im, fm, gm = torch.split(self.conv_m(m), self.hidden, dim=1)
        i, f, g = torch.sigmoid(ix + ih), torch.sigmoid(fx + fh + self.forget_bias), torch.tanh(gx + gh)
        c = f * c + i * g
        i2, f2, g2 = torch.sigmoid(ix2 + im), torch.sigmoid(fx2 + fm + self.forget_bias), torch.tanh(gx2 + gm)
        m = f2 * m + i2 * g2
        both = torch.cat((c, m), 1)
        o = torch.sigmoid(ox + oh + self.conv_o(both))
        return o * torch.tanh(self.conv_last(both)), c, m


class RecurrentDerain(nn.Module):
    """PReNet: stages that share weights, an LSTM written out in the forward with a convolution for each gate."""

    def __init__(self, stages=3, channels=8):
        super().__init__()
        self.stages, self.channels = stages, channels
        self.begin = nn.Sequential(nn.Conv2d(6, channels, 3, 1, 1), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU()
            )
            for _ in range(2)
        )
        for gate, act in (("i", nn.Sigmoid), ("f", nn.Sigmoid), ("g", nn.Tanh), ("o", nn.Sigmoid)):
            setattr(self, f"conv_{gate}", nn.Sequential(nn.Conv2d(2 * channels, channels, 3, 1, 1), act()))
        self.end = nn.Sequential(nn.Conv2d(channels, 3, 3, 1, 1))

    def forward(self, picture):
        batch, _, rows, columns = picture.shape
        x = picture
        h = torch.zeros(batch, self.channels, rows, columns, dtype=picture.dtype)
        c = torch.zeros(batch, self.channels, rows, columns, dtype=picture.dtype)
        pictures = []
        for _ in range(self.stages):
            x = torch.cat((self.begin(torch.cat((picture, x), 1)), h), 1)
            i, f, g, o = self.conv_i(x), self.conv_f(x), self.conv_g(x), self.conv_o(x)
            c = f * c + i * g
            h = o * torch.tanh(c)
            x = h
            for block in self.blocks:
                x = F.relu(block(x) + x)
            x = self.end(x) + picture
            pictures.append(x)
        return x, pictures


class Charbonnier(nn.Module):
    """MPRNet's loss."""

    def __init__(self, eps=1e-3):
        super().__init__()
        self.eps = eps

    def forward(self, x, y):
        diff = x - y
        return torch.mean(torch.sqrt((diff * diff) + (self.eps * self.eps)))


class Edges(nn.Module):
    """MPRNet's edge loss: Charbonnier between two Laplacians."""

    def __init__(self):
        super().__init__()
        line = torch.tensor([[0.05, 0.25, 0.4, 0.25, 0.05]])
        self.register_buffer("kernel", (line.t() @ line)[None].repeat(3, 1, 1, 1), persistent=False)
        self.loss = Charbonnier()

    def blur(self, image):
        image = F.pad(image, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(image, self.kernel, groups=3)

    def laplacian(self, image):
        blurred = self.blur(image)
        spread = torch.zeros_like(blurred)
        spread[:, :, ::2, ::2] = blurred[:, :, ::2, ::2] * 4
        return image - self.blur(spread)

    def forward(self, x, y):
        return self.loss(self.laplacian(x), self.laplacian(y))


class PlacesMemory(nn.Module):
    """MNAD's memory: items come in normalised, as its update left them; the update takes in queries item by item."""

    def forward(self, query, items):
        rows = F.normalize(query, dim=1).permute(0, 2, 3, 1)
        scores = torch.matmul(rows, torch.t(items)).view(-1, items.shape[0])
        of_queries, of_items = F.softmax(scores, dim=0), F.softmax(scores, dim=1)
        found = torch.matmul(of_items.detach(), items).view(rows.shape)
        read = torch.cat((rows, found), dim=3).permute(0, 3, 1, 2)
        return read, self.update(rows.contiguous().view(-1, items.shape[1]), items, of_queries, of_items)

    def update(self, rows, items, of_queries, of_items):
        nearest = of_items.argmax(1)
        taken = torch.zeros_like(items)
        for number in range(len(items)):
            own = torch.nonzero(nearest == number).squeeze(1)
            if len(own):
                weights = of_queries[own, number] / of_queries[:, number].max()
                taken[number] = (weights[:, None] * rows[own]).sum(0)
        return F.normalize(taken + items, dim=1).detach()


def gaussian_line(size=11, sigma=1.5):
    line = torch.tensor([math.exp(-((k - size // 2) ** 2) / (2 * sigma**2)) for k in range(size)])
    return line / line.sum()


def splatting_ssim(x, y, window_size=11):
    """gaussian-splatting's function: a square window made at each call, zeros around the picture."""
    channel = x.size(-3)
    line = gaussian_line(window_size).unsqueeze(1)
    window = (
        line.mm(line.t()).float().unsqueeze(0).unsqueeze(0).expand(channel, 1, window_size, window_size).contiguous()
    )
    window = window.type_as(x)

    def mean(image):
        return F.conv2d(image, window, padding=window_size // 2, groups=channel)

    mu1, mu2 = mean(x), mean(y)
    mu1_sq, mu2_sq, mu12 = mu1.pow(2), mu2.pow(2), mu1 * mu2
    var1, var2, cov = mean(x * x) - mu1_sq, mean(y * y) - mu2_sq, mean(x * y) - mu12
    c1, c2 = 0.01**2, 0.03**2
    return (((2 * mu12 + c1) * (2 * cov + c2)) / ((mu1_sq + mu2_sq + c1) * (var1 + var2 + c2))).mean()


class SeparableSSIM(nn.Module):
    """pytorch-msssim's: a buffer of one line, over rows and columns, only windows that lie inside."""

    def __init__(self, data_range=1.0, nonnegative=False, channel=3):
        super().__init__()
        self.data_range, self.nonnegative = data_range, nonnegative
        self.win = gaussian_line().repeat(channel, 1, 1, 1)

    def mean(self, image, window):
        for axis in range(2):
            image = F.conv2d(image, window.transpose(2 + axis, -1), stride=1, padding=0, groups=image.shape[1])
        return image

    def forward(self, x, y):
        window = self.win.to(x.device, dtype=x.dtype)
        c1, c2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        mu1, mu2 = self.mean(x, window), self.mean(y, window)
        mu1_sq, mu2_sq, mu12 = mu1.pow(2), mu2.pow(2), mu1 * mu2
        var1 = 1.0 * (self.mean(x * x, window) - mu1_sq)
        var2 = 1.0 * (self.mean(y * y, window) - mu2_sq)
        cov = 1.0 * (self.mean(x * y, window) - mu12)
        contrast = (2 * cov + c2) / (var1 + var2 + c2)
        every = ((2 * mu12 + c1) / (mu1_sq + mu2_sq + c1)) * contrast
        per_channel = torch.flatten(every, 2).mean(-1)
        if self.nonnegative:
            per_channel = torch.relu(per_channel)
        return per_channel.mean()


class RaftGRU(nn.Module):
    """RAFT's: update, reset and candidate each by a convolution over [h, x]."""

    def __init__(self, hidden=8, inputs=5):
        super().__init__()
        self.convz, self.convr, self.convq = (nn.Conv2d(hidden + inputs, hidden, 3, padding=1) for _ in "zrq")

    def forward(self, h, x):
        hx = torch.cat([h, x], dim=1)
        z, r = torch.sigmoid(self.convz(hx)), torch.sigmoid(self.convr(hx))
        q = torch.tanh(self.convq(torch.cat([r * h, x], dim=1)))
        return (1 - z) * h + z * q


class RaftSeparableGRU(nn.Module):
    """RAFT's in two passes, along rows and then along columns."""

    def __init__(self, hidden=8, inputs=5):
        super().__init__()
        for number, (kernel, padding) in enumerate((((1, 5), (0, 2)), ((5, 1), (2, 0))), 1):
            for gate in "zrq":
                setattr(self, f"conv{gate}{number}", nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding))

    def forward(self, h, x):
        for number in (1, 2):
            hx = torch.cat([h, x], dim=1)
            z = torch.sigmoid(getattr(self, f"convz{number}")(hx))
            r = torch.sigmoid(getattr(self, f"convr{number}")(hx))
            q = torch.tanh(getattr(self, f"convq{number}")(torch.cat([r * h, x], dim=1)))
            h = (1 - z) * h + z * q
        return h


class MattingGRU(nn.Module):
    """RobustVideoMatting's ConvGRU: reset and update from one convolution, a clip or one frame, the state optional."""

    def __init__(self, channels=8, kernel=3):
        super().__init__()
        self.channels = channels
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, kernel, padding=kernel // 2), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2), nn.Tanh())

    def step(self, x, h):
        r, z = self.ih(torch.cat([x, h], dim=1)).split(self.channels, dim=1)
        c = self.hh(torch.cat([x, r * h], dim=1))
        h = (1 - z) * h + z * c
        return h, h

    def forward(self, x, h=None):
        if h is None:
            h = torch.zeros((x.size(0), x.size(-3), x.size(-2), x.size(-1)), device=x.device, dtype=x.dtype)
        if x.ndim == 5:
            outputs = []
            for frame in x.unbind(dim=1):
                output, h = self.step(frame, h)
                outputs.append(output)
            return torch.stack(outputs, dim=1), h
        return self.step(x, h)


class RadarGRU(nn.Module):
    """DGMR's: spectral norm on every convolution, a candidate by ReLU, the gate the other way round."""

    def __init__(self, inputs=5, hidden=8):
        super().__init__()
        for name in ("read", "update", "output"):
            convolution = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)
            setattr(self, name, nn.utils.parametrizations.spectral_norm(convolution, eps=1e-4))

    def forward(self, x, previous):
        both = torch.cat([x, previous], dim=1)
        read, update = torch.sigmoid(self.read(both)), torch.sigmoid(self.update(both))
        c = F.relu(self.output(torch.cat([x, read * previous], dim=1)))
        out = update * previous + (1.0 - update) * c
        return out, out
