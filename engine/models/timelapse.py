"""Memory-guided Image De-raining Using Time-Lapse Data (Cho, Kim, Sohn; IEEE TIP 2022).

A U-shaped encoder and decoder (Table I) with 20 memory items of 64 numbers between them. Every position of the
encoder's output is a query; it reads a mixture of the items, which hold typical rain, and the decoder turns query and
mixture into the streak layer that is subtracted. Training needs no clean pictures: two views of one scene share their
background.

Parameters: 818,115 with batch normalisation, 815,683 without (`norm=False`); both print as 0.81 M. The items are a
buffer.

What was settled where paper and the authors' code disagree:

* The bottleneck has 64 channels (0.81 M needs it); the "32" of the implementation details is wrong.
* Batch normalisation and ReLU after every convolution but the encoder's last (neither) and the output (tanh), as in
  the code. The code's encoder owns one more normalisation, of 64 channels, that nothing uses; it is kept
  (`unused_norm`, never called, no gradient) because it is part of the count and of the authors' checkpoints.
* The query is the encoder's output, instance-normalised (this is what the whitening loss sees), then of unit length.
* Joins are [encoder, upsampled], as in the code; Table I lists them the other way round.
* Reading is outside the gradient: the decoder's gradient reaches the encoder through the query half of its input
  only.
* The update is eq. (6); `update="hard"` is the authors' rule, where a query goes to its nearest item alone and its
  weight is divided by the largest. Neither is differentiated, and neither changes the buffer: the caller stores the
  items it gets.
* The streak layer is tanh of a decoder that ends in tanh, so it is at most tanh(1) = 0.7616 on the scale [-1, 1], and
  no pixel of a [0, 1] picture changes by more than 0.3808.
* The network sees BGR in [-1, 1]. At test time the items stay as training left them.

Instance normalisation averages over the whole picture, so a tile is not derained exactly as the same place in the
whole picture; the authors work at 256 x 256.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from .sizing import check_images, pad_to_multiple

CHANNELS = 64
UPDATES = ("soft", "hard")


@dataclass(frozen=True)
class TimelapseConfig:
    items: int = 20  # M
    norm: bool = True  # batch normalisation
    update: str = "soft"  # "soft" is eq. (6), "hard" the authors' rule

    def __post_init__(self) -> None:
        if self.update not in UPDATES:
            raise UnrainError(f"timelapse has no update rule {self.update!r}; it takes {', '.join(UPDATES)}.")
        if self.items < 1:
            raise UnrainError(f"timelapse needs at least one memory item, got {self.items}.")


Skips = tuple[Tensor, Tensor, Tensor]  # the encoder's maps at full, 1/2 and 1/4 scale, [B, 64, ., .]


class Separation(NamedTuple):
    """What the losses of one view need; pictures are RGB on the scale of [0, 1], `background + rain` is the input."""

    background: Tensor  # [B, 3, H, W]
    rain: Tensor  # [B, 3, H, W]
    features: Tensor  # [B, 64, h, w] instance-normalised, for the whitening loss
    query: Tensor  # [B, 64, h, w] the same at unit length, for the memory


class Timelapse(nn.Module):
    Config = TimelapseConfig
    multiple = 16  # three halvings, and at least 2 x 2 queries for the instance normalisation of the smallest picture

    def __init__(self, config: TimelapseConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TimelapseConfig()
        self.encoder = Encoder(config.norm)
        self.decoder = Decoder(config.norm)
        self.register_buffer("items", F.normalize(torch.rand(config.items, CHANNELS), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [0, 1] to the background, same shape."""
        return x - self.rain(x)

    def rain(self, x: Tensor) -> Tensor:
        """The streaks of RGB pictures in [0, 1], to be subtracted from them."""
        return self.separate(x).rain

    def separate(self, x: Tensor, items: Tensor | None = None) -> Separation:
        """Everything about one view; `items` stand in for the stored memory."""
        check_images(x)
        padded, crop = pad_to_multiple(x, self.multiple)
        features, skips = self.encode(padded)
        query = self.query(features)
        rain = crop(self.decode(query, self.read(query, items), skips))
        return Separation(x - rain, rain, features, query)

    def separate_views(self, first: Tensor, second: Tensor) -> tuple[Separation, Separation, Tensor]:
        """One training step's two views in the authors' order, and the items after it (to be stored in `items`).

        The first view reads the stored items and updates them; the second reads those and updates them again.
        """
        one = self.separate(first)
        items = self.update_memory(one.query)
        two = self.separate(second, items)
        return one, two, self.update_memory(two.query, items)

    def encode(self, x: Tensor) -> tuple[Tensor, Skips]:
        """Instance-normalised features [B, 64, H/8, W/8] and skips of RGB in [0, 1]; sides are multiples of 16."""
        features, skips = self.encoder(x.flip(1) * 2 - 1)
        return F.instance_norm(features), skips

    def query(self, features: Tensor) -> Tensor:
        """The queries [B, 64, h, w]: features at unit length at every position."""
        return F.normalize(features, dim=1)

    def read(self, query: Tensor, items: Tensor | None = None) -> Tensor:
        """Eq. (2) to (4): the mixture of items [B, 64, h, w] that the queries [B, 64, h, w] retrieve."""
        items = self.items if items is None else items
        batch, _, height, width = query.shape
        weights = cosine(flatten_positions(query.detach()), items).softmax(dim=1)  # [N, M], over the items
        return (weights @ items).reshape(batch, height, width, CHANNELS).movedim(-1, 1)

    def decode(self, query: Tensor, retrieved: Tensor, skips: Skips) -> Tensor:
        """The streaks of RGB pictures in [0, 1], [B, 3, H, W]."""
        streaks = torch.tanh(self.decoder(torch.cat((query, retrieved), dim=1), skips))  # BGR on the scale of [-1, 1]
        return streaks.flip(1) / 2

    @torch.no_grad()
    def update_memory(self, query: Tensor, items: Tensor | None = None) -> Tensor:
        """Eq. (5) and (6), or the authors' rule: new items [M, 64] from all queries of a batch."""
        items = self.items if items is None else items
        flat = flatten_positions(query)  # [N, 64]
        scores = cosine(flat, items)  # [N, M]
        weights = scores.softmax(dim=0)  # over the queries
        if self.config.update == "hard":
            nearest = F.one_hot(scores.argmax(dim=1), items.shape[0])  # [N, M]
            weights = weights / weights.amax(dim=0) * nearest
        return F.normalize(items + weights.T @ flat, dim=1)


class Encoder(nn.Module):
    """Table I, left: four pairs of convolutions, max-pooling between them."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.level1 = nn.Sequential(conv(3, norm), conv(CHANNELS, norm))  # E1a, E1b
        self.level2 = nn.Sequential(conv(CHANNELS, norm), conv(CHANNELS, norm))
        self.level3 = nn.Sequential(conv(CHANNELS, norm), conv(CHANNELS, norm))
        self.level4 = nn.Sequential(conv(CHANNELS, norm), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))  # E4b is bare
        if norm:
            self.unused_norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, image: Tensor) -> tuple[Tensor, Skips]:
        full = self.level1(image)
        half = self.level2(F.max_pool2d(full, 2))
        quarter = self.level3(F.max_pool2d(half, 2))
        return self.level4(F.max_pool2d(quarter, 2)), (full, half, quarter)


class Decoder(nn.Module):
    """Table I, right: from {query, retrieved} upwards, joined with the encoder's maps; ends in tanh."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.level4 = nn.Sequential(conv(2 * CHANNELS, norm), conv(CHANNELS, norm))  # D4a, D4b
        self.up3 = upconv(norm)
        self.level3 = nn.Sequential(conv(2 * CHANNELS, norm), conv(CHANNELS, norm))
        self.up2 = upconv(norm)
        self.level2 = nn.Sequential(conv(2 * CHANNELS, norm), conv(CHANNELS, norm))
        self.up1 = upconv(norm)
        self.level1 = nn.Sequential(conv(2 * CHANNELS, norm), conv(CHANNELS, norm))
        self.output = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, x: Tensor, skips: Skips) -> Tensor:
        full, half, quarter = skips
        x = self.level4(x)
        x = self.level3(torch.cat((quarter, self.up3(x)), dim=1))
        x = self.level2(torch.cat((half, self.up2(x)), dim=1))
        x = self.level1(torch.cat((full, self.up1(x)), dim=1))
        return torch.tanh(self.output(x))


def conv(inputs: int, norm: bool) -> nn.Sequential:
    """3x3 convolution to 64 channels, batch normalisation if any, ReLU."""
    return finished(nn.Conv2d(inputs, CHANNELS, 3, padding=1), norm)


def upconv(norm: bool) -> nn.Sequential:
    """3x3 transposed convolution to twice the size, batch normalisation if any, ReLU."""
    return finished(nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, output_padding=1), norm)


def finished(layer: nn.Module, norm: bool) -> nn.Sequential:
    return nn.Sequential(layer, *([nn.BatchNorm2d(CHANNELS)] if norm else []), nn.ReLU())


def flatten_positions(query: Tensor) -> Tensor:
    """[B, C, h, w] to [B*h*w, C]: batch and place are one flat list of queries."""
    return query.movedim(1, -1).flatten(0, -2)


def cosine(queries: Tensor, items: Tensor) -> Tensor:
    """Eq. (3): cosine similarities [N, M]."""
    return F.normalize(queries, dim=1) @ F.normalize(items, dim=1).T
