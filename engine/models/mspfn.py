"""MSPFN: Multi-Scale Progressive Fusion Network for Single Image Deraining (Jiang et al., CVPR 2020).

A three-level pyramid of the rainy picture goes through one coarse-fusion module (CFM: a ConvLSTM per scale), M
fine-fusion modules (FFM: a U-shaped residual attention block, URAB, per scale) and a reconstruction module (RM) that
predicts the rain, which is subtracted. Everything runs from the smallest scale upwards, and each scale sees the
smaller ones.

Parameters: `mspfn` (M = 17, N = 1) 13,702,976; the other sizes are in `catalog.py`.

What was settled where paper, printed counts and the authors' code disagree:

* The text gives the ConvLSTMs 32, 64 and 128 channels (1/4, 1/2 and full scale), the code 64, 128 and 256 behind
  32-channel inputs. Layout "paper", the default, is the code's topology with the text's widths, the input of each
  LSTM as wide as its state: this gives the paper's counts for the CFM and for the model without FFMs. Layout "repo"
  is the code as it stands (15,823,424). Layout "fit" (13,349,376) meets the printed 13.35 M: the N units of a URAB
  share one channel attention, and a larger scale takes in the smaller one by a concatenation and a 1x1 convolution.
  No layout meets the whole printed table.
* The recurrence is nominal: each ConvLSTM is called once, from a zero state. It is a full step all the same, so its
  forget gate and the half of its weights that reads the state exist, count, and receive no gradient.
* "Gaussian pyramid" means the box average of K x K pixels with stride K, for K = 2 and K = 4, both from the full
  picture.
* Convolutions have no bias and are followed by a PReLU per channel; only the attention units and the LSTMs have
  biases.
* `mspfn-light` (M = 5, N = 1) is 32 channels wide everywhere and halves twice in each URAB, joining on both ways up.
* The network sees BGR in [-1, 1], as the authors' does.

Channel attention averages over the whole picture, so a tile is not derained exactly as the same place in the whole
picture.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from .sizing import check_images, pad_to_multiple


class Layout(NamedTuple):
    """The widths that differ between the text, the fit to the printed counts, the code and the light model."""

    channels: int
    lstm_inputs: tuple[int, int, int]  # at 1/4, 1/2 and full scale
    lstm_states: tuple[int, int, int]
    halvings: int  # in each URAB
    tail: int  # channels before the last convolution
    lean: bool  # FFMs with one shared attention per URAB and joins by 1x1 convolutions


LAYOUTS = {
    "paper": Layout(64, (32, 64, 128), (32, 64, 128), halvings=1, tail=32, lean=False),
    "fit": Layout(64, (32, 64, 128), (32, 64, 128), halvings=1, tail=32, lean=True),
    "repo": Layout(64, (32, 32, 32), (64, 128, 256), halvings=1, tail=32, lean=False),
    "light": Layout(32, (32, 32, 32), (32, 32, 32), halvings=2, tail=16, lean=False),
}


@dataclass(frozen=True)
class MSPFNConfig:
    modules: int = 17  # M, fine-fusion modules
    units: int = 1  # N, channel attention units in each URAB
    layout: str = "paper"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UnrainError(f"mspfn has no layout {self.layout!r}; it takes {', '.join(LAYOUTS)}.")
        if self.modules < 0 or self.units < 1:
            raise UnrainError("mspfn needs modules >= 0 and units >= 1.")


class Scales(NamedTuple):
    """One feature map per level of the pyramid."""

    quarter: Tensor  # [B, C, H/4, W/4]
    half: Tensor  # [B, C, H/2, W/2]
    full: Tensor  # [B, C, H, W]


class MSPFN(nn.Module):
    Config = MSPFNConfig

    def __init__(self, config: MSPFNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MSPFNConfig()
        layout = LAYOUTS[config.layout]
        C = layout.channels
        self.multiple = 4 << layout.halvings  # a URAB halves the quarter scale again
        self.initial = nn.ModuleList(conv(3, C) for _ in Scales._fields)
        self.cfm = CFM(C, layout.lstm_inputs, layout.lstm_states)
        if layout.lean:
            self.ffms = nn.ModuleList(LeanFFM(C, config.units) for _ in range(config.modules))
        else:
            self.ffms = nn.ModuleList(FFM(C, config.units, layout.halvings) for _ in range(config.modules))
        self.rm = RM(C, layout.tail)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [0, 1] to the picture without rain, same shape."""
        check_images(x)
        padded, crop = pad_to_multiple(x, self.multiple)
        rain = self.rain(to_network_range(padded))
        return x - crop(from_network_difference(rain))

    def rain(self, image: Tensor) -> Tensor:
        """The residual rain of a BGR picture in [-1, 1], on the same scale; sides are multiples of `self.multiple`."""
        pyramid = (box_average(image, 4), box_average(image, 2), image)
        shallow = Scales(*(conv(level) for conv, level in zip(self.initial, pyramid, strict=True)))
        coarse = fine = self.cfm(shallow)
        for ffm in self.ffms:
            fine = ffm(fine)
        return self.rm(fine, coarse)


class CFM(nn.Module):
    """Coarse-fusion module: a residual recurrent unit per scale, each fed the results of all smaller scales."""

    def __init__(self, channels: int, lstm_inputs: tuple[int, int, int], lstm_states: tuple[int, int, int]) -> None:
        super().__init__()
        units = [RRU(channels, width, state) for width, state in zip(lstm_inputs, lstm_states, strict=True)]
        self.rru_quarter, self.rru_half, self.rru_full = units
        self.quarter_to_half = deconv(channels, channels)
        self.quarter_to_full = deconv(channels, channels)  # of the map already brought to 1/2
        self.half_to_full = deconv(channels, channels)

    def forward(self, shallow: Scales) -> Scales:
        quarter = self.rru_quarter(shallow.quarter, skip=shallow.quarter)
        from_quarter = self.quarter_to_half(quarter)
        half = self.rru_half(shallow.half + from_quarter, skip=shallow.half)
        risen = self.half_to_full(half) + self.quarter_to_full(from_quarter)
        full = self.rru_full(shallow.full + risen, skip=shallow.full)
        return Scales(quarter, half, full)


class RRU(nn.Module):
    """Residual recurrent unit; what smaller scales add enters the LSTM only, the skip is the scale's own feature."""

    def __init__(self, channels: int, lstm_input: int, lstm_state: int) -> None:
        super().__init__()
        self.before = conv(channels, lstm_input)
        self.lstm = ConvLSTM(lstm_input, lstm_state)
        self.after = conv(lstm_state, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.before(x)
        h, _ = self.lstm(x, self.lstm.zero_state(x))
        return skip + self.after(h)


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM without peepholes; gates in the order input, forget, candidate, output.

    The authors add 1 to the forget gate's pre-activation in code; here that 1 is what its bias starts from.
    """

    def __init__(self, channels: int, state: int) -> None:
        super().__init__()
        self.state = state
        self.gates = nn.Conv2d(channels + state, 4 * state, 3, padding=1)

    def zero_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = x.new_zeros(x.shape[0], self.state, *x.shape[-2:])
        return zeros, zeros

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        i, f, g, o = self.gates(torch.cat((x, h), dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class FFM(nn.Module):
    """Fine-fusion module: a URAB per scale, fed the sum of the scale's feature and all smaller scales' results."""

    def __init__(self, channels: int, units: int, halvings: int) -> None:
        super().__init__()
        self.urab_quarter, self.urab_half, self.urab_full = (
            URAB(channels, nn.Sequential(*(RCAB(channels) for _ in range(units))), halvings) for _ in range(3)
        )
        self.quarter_to_half = deconv(channels, channels)
        self.quarter_to_full = deconv(channels, channels)  # of the map already brought to 1/2
        self.half_to_full = deconv(channels, channels)

    def forward(self, x: Scales) -> Scales:
        quarter = x.quarter + self.urab_quarter(x.quarter)
        from_quarter = self.quarter_to_half(quarter)
        half = x.half + self.urab_half(x.half + from_quarter)
        full = x.full + self.urab_full(x.full + self.quarter_to_full(from_quarter) + self.half_to_full(half))
        return Scales(quarter, half, full)


class LeanFFM(nn.Module):
    """The FFM that fits the printed counts: each scale joins the next smaller one by a 1x1 convolution."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.urab_quarter, self.urab_half, self.urab_full = (
            URAB(channels, SharedAttentionUnits(channels, units), halvings=1) for _ in range(3)
        )
        self.quarter_to_half = deconv(channels, channels)
        self.half_to_full = deconv(channels, channels)
        self.join_half = conv(2 * channels, channels, kernel=1)
        self.join_full = conv(2 * channels, channels, kernel=1)

    def forward(self, x: Scales) -> Scales:
        quarter = x.quarter + self.urab_quarter(x.quarter)
        joined = self.join_half(torch.cat((x.half, self.quarter_to_half(quarter)), dim=1))
        half = x.half + self.urab_half(joined)
        joined = self.join_full(torch.cat((x.full, self.half_to_full(half)), dim=1))
        full = x.full + self.urab_full(joined)
        return Scales(quarter, half, full)


class URAB(nn.Module):
    """U-shaped residual attention block: halve, attend, come back up from [before, after]. The caller adds the skip."""

    def __init__(self, channels: int, attention: nn.Module, halvings: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList(conv(channels, channels, stride=2) for _ in range(halvings))
        self.attention = attention
        self.ups = nn.ModuleList(deconv(2 * channels, channels) for _ in range(halvings))

    def forward(self, x: Tensor) -> Tensor:
        befores = []
        for down in self.downs:
            x = down(x)
            befores.append(x)
        x = self.attention(x)
        for up, before in zip(self.ups, reversed(befores), strict=True):
            x = up(torch.cat((before, x), dim=1))
        return x


class ChannelAttention(nn.Module):
    """Weights in (0, 1) for each channel, from its mean over the whole picture."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.PReLU(squeezed))
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(self.squeeze(x.mean(dim=(-2, -1), keepdim=True))))  # [B, C, 1, 1]


class RCAB(nn.Module):
    """Residual channel attention block, the paper's channel attention unit (CAU)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y * self.attention(y)


class SharedAttentionUnits(nn.Module):
    """N residual units without biases that share the weights of one channel attention."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(
            nn.Sequential(conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            for _ in range(units)
        )
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        for body in self.bodies:
            y = body(x)
            x = x + y * self.attention(y)
        return x


class RM(nn.Module):
    """Reconstruction module: joins fine and coarse features per scale, brings all to full scale, predicts the rain."""

    def __init__(self, channels: int, tail: int) -> None:
        super().__init__()
        self.join_quarter, self.join_half, self.join_full = (conv(2 * channels, channels) for _ in range(3))
        self.quarter_to_half = deconv(channels, channels)
        self.half_to_full = deconv(2 * channels, channels)
        self.fuse = conv(2 * channels, tail)
        self.to_rain = nn.Conv2d(tail, 3, 3, padding=1, bias=False)

    def forward(self, fine: Scales, coarse: Scales) -> Tensor:
        quarter = self.join_quarter(torch.cat((fine.quarter, coarse.quarter), dim=1))
        half = self.join_half(torch.cat((fine.half, coarse.half), dim=1))
        full = self.join_full(torch.cat((fine.full, coarse.full), dim=1))
        risen = self.half_to_full(torch.cat((self.quarter_to_half(quarter), half), dim=1))
        return self.to_rain(self.fuse(torch.cat((full, risen), dim=1)))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then a PReLU per channel."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.PReLU(outputs))


def deconv(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 transposed convolution to twice the size, without bias, then a PReLU per channel."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False), nn.PReLU(outputs)
    )


def box_average(image: Tensor, factor: int) -> Tensor:
    """The pyramid level at 1/factor: the mean of each factor x factor box."""
    return F.avg_pool2d(image, factor)


def to_network_range(x: Tensor) -> Tensor:
    """RGB in [0, 1] to BGR in [-1, 1]."""
    return x.flip(1) * 2 - 1


def from_network_difference(difference: Tensor) -> Tensor:
    """A difference of BGR pictures in [-1, 1] to that of RGB pictures in [0, 1]."""
    return difference.flip(1) / 2


def initialise(network: nn.Module) -> None:
    """As the authors start: Xavier convolutions, PReLU slopes 0, LSTM weights near 0, forget bias 1, other biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.PReLU):
            nn.init.zeros_(module.weight)
    for module in network.modules():
        if isinstance(module, ConvLSTM):
            nn.init.trunc_normal_(module.gates.weight, std=1e-3, a=-2e-3, b=2e-3)
            with torch.no_grad():
                module.gates.bias[module.state : 2 * module.state] = 1
