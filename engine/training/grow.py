"""A larger wiper that begins as a smaller one: what is new adds nothing at first, and learns.

Wider layers get the smaller one's weights in their corner; what they read from new channels is zero. New pairs of
convolutions add zero, and the first of them lifts its map above zero, where the slope after each leaves it alone; who
reads the last takes off the lift, but for the padding that a 3x3 reads beyond the border.
"""

import torch
from torch import nn

from ..errors import UnrainError
from ..models.wiper import Wiper

_LIFT = 2.0  # what is negative has passed a slope of 0.1 already


@torch.no_grad()
def grow(model: Wiper, smaller: Wiper) -> None:
    """Make `model` begin as `smaller`; the weights of its new channels stay as they are."""
    ours = dict(model.named_parameters())
    for name, given in smaller.named_parameters():
        if name not in ours or any(new < old for new, old in zip(ours[name].shape, given.shape, strict=True)):
            raise UnrainError(
                f"a network of {smaller.config} is not smaller than one of {model.config}: --init wants that."
            )
        kept = ours[name][: len(given)]
        kept.zero_()
        kept[tuple(map(slice, given.shape))] = given
    _move_state(model, smaller)
    _add_pairs(model.deep[len(smaller.deep) :], [model.from_eighth])
    _add_pairs(model.body[len(smaller.body) :], [model.remember, model.from_quarter])


def _add_pairs(pairs: nn.Sequential, readers: list[nn.Conv2d]) -> None:
    for number, pair in enumerate(pairs):
        pair.second.weight.zero_()
        pair.second.bias.fill_(0.0 if number else _LIFT)
    if len(pairs):
        for reader in readers:
            reader.bias -= _LIFT * reader.weight.sum((1, 2, 3))


def _move_state(model: Wiper, smaller: Wiper) -> None:
    """`merge` reads the state behind the channels at a quarter, of which there may be more now."""
    old, new, hidden = smaller.config.quarter, model.config.quarter, smaller.config.hidden
    kept = model.merge.weight[:old]
    kept[:, old:].zero_()
    kept[:, new : new + hidden] = smaller.merge.weight[:, old:]
