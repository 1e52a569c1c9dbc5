"""Networks that are not ours, written from their papers: what a recorder that knows no classes has to take.

DnCNN (Zhang et al. 2017), FFDNet (Zhang et al. 2018), the compact SRVGGNet at x1 (Wang et al. 2021, Real-ESRGAN), U-Net
(Ronneberger et al. 2015), PReNet in its authors' layout (Ren et al. 2019), NAFNet (Chen et al. 2022), EDSR's body
(Lim et al. 2017).
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class DnCNN(nn.Module):
    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        super().__init__()
        layers = [conv(3, channels), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [conv(channels, channels, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, conv(channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.layers(x)


class FFDNet(nn.Module):
    """The noise level is a buffer here: a program has one input."""

    def __init__(self, channels: int = 96, depth: int = 12) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.full((1, 1, 1, 1), 25 / 255))
        layers = [conv(13, channels), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [conv(channels, channels), nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*layers, conv(channels, 12))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        x = F.pixel_unshuffle(x, 2)
        level = self.sigma.repeat(1, 1, x.shape[-2], x.shape[-1]).expand(x.shape[0], -1, -1, -1)
        return F.pixel_shuffle(self.model(torch.cat((x, level), 1)), 2)[..., :height, :width]


class SRVGGNetCompact(nn.Module):
    def __init__(self, channels: int = 64, depth: int = 16) -> None:
        super().__init__()
        self.body = nn.ModuleList([conv(3, channels), nn.PReLU(channels)])
        for _ in range(depth):
            self.body += [conv(channels, channels), nn.PReLU(channels)]
        self.body.append(conv(channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.body:
            y = layer(y)
        return y + x


class Twice(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        parts = [[conv(each, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)] for each in (inputs, outputs)]
        super().__init__(*parts[0], *parts[1])


class UNet(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels, 8 * channels]
        self.down = nn.ModuleList(Twice(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in itertools.pairwise(widths))
        self.join = nn.ModuleList(Twice(2 * a, a) for a in widths[:-1])
        self.out = nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            seen.append(x)
        for up, join, skip in zip(reversed(self.up), reversed(self.join), reversed(seen[:-1]), strict=True):
            x = join(torch.cat([skip, up(x)], dim=1))
        return self.out(x)


class PReNet(nn.Module):
    """Six stages in forward; the four gates are an nn.Sequential each, the states zeros made on the spot."""

    def __init__(self, stages: int = 6) -> None:
        super().__init__()
        self.iteration = stages
        self.conv0 = nn.Sequential(conv(6, 32), nn.ReLU())
        for number in range(1, 6):
            block = nn.Sequential(conv(32, 32), nn.ReLU(), conv(32, 32), nn.ReLU())
            self.add_module(f"res_conv{number}", block)
        self.conv_i = nn.Sequential(conv(64, 32), nn.Sigmoid())
        self.conv_f = nn.Sequential(conv(64, 32), nn.Sigmoid())
        self.conv_g = nn.Sequential(conv(64, 32), nn.Tanh())
        self.conv_o = nn.Sequential(conv(64, 32), nn.Sigmoid())
        self.conv = nn.Sequential(conv(32, 3))

    def forward(self, input: Tensor) -> Tensor:
        batch, height, width = input.size(0), input.size(2), input.size(3)
        x = input
        h = torch.zeros(batch, 32, height, width)
        c = torch.zeros(batch, 32, height, width)
        for _ in range(self.iteration):
            x = torch.cat((input, x), 1)
            x = self.conv0(x)
            x = torch.cat((x, h), 1)
            i, f, g, o = self.conv_i(x), self.conv_f(x), self.conv_g(x), self.conv_o(x)
            c = f * c + i * g
            h = o * torch.tanh(c)
            x = h
            for number in range(1, 6):
                resx = x
                x = F.relu(getattr(self, f"res_conv{number}")(x) + resx)
            x = self.conv(x)
            x = x + input
        return x


class LayerNorm2d(nn.Module):
    """Over the channels of each pixel, written out as NAFNet's authors do."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        return x1 * x2


class NAFBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(c, 2 * c, 1), conv(2 * c, 2 * c, groups=2 * c), conv(c, c, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.sg = SimpleGate()
        self.conv4, self.conv5 = conv(c, 2 * c, 1), conv(c, c, 1)
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.beta, self.gamma = (nn.Parameter(torch.full((1, c, 1, 1), 0.5)) for _ in range(2))

    def forward(self, inp: Tensor) -> Tensor:
        x = self.sg(self.conv2(self.conv1(self.norm1(inp))))
        x = x * self.sca(x)
        y = inp + self.conv3(x) * self.beta
        x = self.conv5(self.sg(self.conv4(self.norm2(y))))
        return y + x * self.gamma


class NAFNet(nn.Module):
    def __init__(self, width: int = 16, blocks: tuple[int, ...] = (1, 1, 2), middle: int = 1) -> None:
        super().__init__()
        self.intro, self.ending = conv(3, width), conv(width, 3)
        self.encoders, self.decoders, self.downs, self.ups = (nn.ModuleList() for _ in range(4))
        for count in blocks:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(count))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width *= 2
        self.middle = nn.Sequential(*(NAFBlock(width) for _ in range(middle)))
        for _ in blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(NAFBlock(width)))
        self.padder_size = 2 ** len(blocks)

    def forward(self, inp: Tensor) -> Tensor:
        height, width = inp.shape[-2:]
        size = self.padder_size
        inp = F.pad(inp, (0, (size - width % size) % size, 0, (size - height % size) % size))
        x, seen = self.intro(inp), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            seen.append(x)
            x = down(x)
        x = self.middle(x)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(seen), strict=True):
            x = decoder(up(x) + skip)
        return (self.ending(x) + inp)[:, :, :height, :width]


class EDSRBlock(nn.Module):
    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), nn.ReLU(True), conv(channels, channels))
        self.res_scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mul(self.res_scale) + x


class EDSRBody(nn.Module):
    def __init__(self, channels: int = 64, blocks: int = 8, scale: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1))
        self.head, self.tail = conv(3, channels), conv(channels, 3)
        self.body = nn.Sequential(*(EDSRBlock(channels, scale) for _ in range(blocks)), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x - self.mean)
        return self.tail(self.body(y) + y) + self.mean


STRANGERS = {each.__name__: each for each in (DnCNN, FFDNet, SRVGGNetCompact, UNet, PReNet, NAFNet, EDSRBody)}


def stranger(name: str) -> nn.Module:
    """The network with numbers that leave nothing out: biases, slopes and statistics that are not their defaults."""
    torch.manual_seed(0)
    module = STRANGERS[name]()
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.rand_like(parameter)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean += 0.1 * torch.randn_like(each.running_mean)
            each.running_var *= 0.5 + torch.rand_like(each.running_var)
    return module.eval()
