"""A larger wiper that begins as a smaller one: what is new adds nothing at first, and learns.

Wider layers get the smaller one's weights in their corner; what they read from new channels is zero, so with as many
pairs of convolutions the new network does exactly what the old one did. A new pair adds zero, but what is negative
passes its slope once more.
"""

import torch

from ..errors import UnrainError
from ..models.wiper import Wiper


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
    for pairs, begun in ((model.deep, smaller.deep), (model.body, smaller.body)):
        for pair in pairs[len(begun) :]:
            pair.second.weight.zero_()
            pair.second.bias.zero_()


def _move_state(model: Wiper, smaller: Wiper) -> None:
    """`merge` reads the state behind the channels at a quarter, of which there may be more now."""
    old, new, hidden = smaller.config.quarter, model.config.quarter, smaller.config.hidden
    kept = model.merge.weight[:old]
    kept[:, old:].zero_()
    kept[:, new : new + hidden] = smaller.merge.weight[:, old:]
