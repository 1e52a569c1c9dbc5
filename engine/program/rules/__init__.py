"""The rules that rewrite a network, each a function from a run to a run that computes the same.

`ALL` is every rule in the order of their application; the list is gone through until nothing changes any more.
"""

from __future__ import annotations

from ..graph import Rule, Run
from . import affine, attention, cells, epilogue, hoist, joined, order, pieces, shared, sign, zeros

ALL: tuple[Rule, ...] = (
    shared.once,
    zeros.without_zeros,
    zeros.of_constants,
    joined.flat_concatenations,
    joined.pointwise_of_concatenations,
    joined.unshuffled_concatenations,
    attention.channel_norms,
    attention.memory_reads,
    affine.merged,
    affine.over_sums,
    affine.into_convolution_before,
    affine.into_convolution_after,
    cells.interpolations,
    cells.lstm_cells,
    pieces.of_concatenations,
    pieces.of_pointwise,
    pieces.of_convolutions,
    cells.convolutional_lstms,
    joined.convolution_of_concatenation,
    zeros.convolutions_without_zeros,
    joined.repeated_sources,
    epilogue.differences,
    epilogue.activations,
    epilogue.shuffles,
    epilogue.sums,
    sign.needless_relus,
    hoist.unchanging_sources,
    order.early,
)
ROUNDS = 12


def apply(run: Run) -> Run:
    """The run after all rules."""
    for _ in range(ROUNDS):
        before = run.nodes
        for rule in ALL:
            run = rule(run)
        if run.nodes == before:
            break
    return run
