"""A small rain radar, a ConvLSTM that predicts its next pictures, and `unrain.accelerate` in one line.

    python examples/nowcasting.py                 # about a minute
    python examples/nowcasting.py --seconds 10

The ConvLSTM below is the kind found in many repositories: plain PyTorch, gates in its own order, nothing of unrain.
It is trained twice from the same weights on the same pictures: as it is, and accelerated. Printed are the losses of
both, which must agree, and the time of a training step, each the median over the run.
"""

import argparse
import copy
import statistics
import time

import torch
from torch import Tensor, nn

import unrain

SIDE, SEEN, PREDICTED = 48, 6, 4  # pixels, frames that are given, frames that are asked for


class Cell(nn.Module):
    """Someone's ConvLSTM cell."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, o, g = self.conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Nowcaster(nn.Module):
    """Pictures [B, SEEN, 1, H, W] in [0, 1] -> the next PREDICTED ones."""

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.cells = nn.ModuleList([Cell(1, hidden), Cell(hidden, hidden)])
        self.readout = nn.Conv2d(hidden, 1, 1)

    def forward(self, seen: Tensor) -> Tensor:
        batch, _, _, height, width = seen.shape
        states = [(seen.new_zeros(batch, cell.hidden, height, width),) * 2 for cell in self.cells]
        predicted: list[Tensor] = []
        for step in range(SEEN + PREDICTED - 1):
            x = picture = seen[:, step] if step < SEEN else predicted[-1]
            for number, cell in enumerate(self.cells):
                states[number] = cell(x, states[number])
                x = states[number][0]
            if step >= SEEN - 1:
                predicted.append(picture + self.readout(x))
        return torch.stack(predicted, 1)


def radar(seed: int, batch: int = 4) -> Tensor:
    """Rain cells that drift with the wind, grow and fade: [B, SEEN + PREDICTED, 1, SIDE, SIDE] in [0, 1]."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    count, when = 6, torch.arange(SEEN + PREDICTED).view(1, -1, 1)
    wind, start = draw(-2, 2, batch, 1, 1, 2), draw(0, SIDE, batch, 1, count, 2)
    centre = start + (wind + draw(-0.5, 0.5, batch, 1, count, 2)) * when[..., None]  # [B, T, count, 2]
    size = draw(3, 7, batch, 1, count) * (1 + draw(-0.05, 0.05, batch, 1, count) * when)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    grid = torch.stack([y, x], -1).view(1, 1, 1, SIDE, SIDE, 2)
    distance = (grid - centre[:, :, :, None, None]).square().sum(-1)
    cells = torch.exp(-distance / (2 * size.square()[..., None, None]))
    return cells.sum(2, keepdim=True).clamp(max=1)


def train(model: nn.Module, seconds: float | None, steps: int | None = None) -> tuple[list[float], float]:
    """For so long, or so many steps: the loss of every step, and the median milliseconds of one."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses, times, end = [], [], time.perf_counter() + (seconds or 0)
    while len(losses) < (steps or 3) or (steps is None and time.perf_counter() < end):
        pictures = radar(seed=len(losses))
        begin = time.perf_counter()
        loss = (model(pictures[:, :SEEN]) - pictures[:, SEEN:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append((time.perf_counter() - begin) * 1e3)
        losses.append(loss.item())
    return losses, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for both trainings together (default 60)")
    seconds = parser.parse_args().seconds

    torch.manual_seed(0)
    plain = Nowcaster()
    # the one line; without its option Inductor compiles what is left, which takes a minute or two
    fused = unrain.accelerate(copy.deepcopy(plain), options={"rest": "eager"})

    before, slow = train(plain, seconds / 2)
    after, quick = train(fused, None, steps=len(before))
    print(fused.report)
    last = max(1, len(before) // 10)
    print(f"\n{len(before)} steps each, mean of the first and the last {last}:")
    for name, losses, milliseconds in (("plain", before, slow), ("accelerated", after, quick)):
        ends = statistics.mean(losses[:last]), statistics.mean(losses[-last:])
        print(f"  {name:12} loss {ends[0]:.5f} -> {ends[1]:.5f}   {milliseconds:7.1f} ms a step")
    apart = max(abs(a - b) / a for a, b in zip(before, after, strict=True))
    print(f"losses agree within {100 * apart:.4f} %; a step is {slow / quick:.2f} times as fast")


if __name__ == "__main__":
    main()
