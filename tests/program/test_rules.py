"""Each rule alone, on a network of a few lines: what it makes of it, and that the result is the same."""

import pytest
import torch
import torch.nn.functional as F

from unrain.engine.program import rules
from unrain.engine.program.rules import (
    affine,
    attention,
    cells,
    epilogue,
    hoist,
    joined,
    order,
    pieces,
    shared,
    sign,
    zeros,
)


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return lambda outputs, inputs, kernel=3: Weight(0.3 * torch.randn(outputs, inputs, kernel, kernel))


class Weight:
    """A convolution's weights, usable in every precision."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self.bias = torch.linspace(-0.5, 0.5, weight.shape[0])

    def __call__(self, x: torch.Tensor, **options) -> torch.Tensor:
        options = {"padding": self.weight.shape[-1] // 2, **options}
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), **options)


def test_zero_states_drop_their_terms(small, weights):
    w = weights(4, 3)
    network = small(lambda x: w(x) + torch.zeros_like(w(x)) * w(x))
    assert network.after(zeros.without_zeros).ops == ["conv"]
    assert network.is_right()


def test_zero_maps_leave_the_convolution_that_reads_them(small, weights):
    w = weights(4, 6)
    network = small(lambda x: w(torch.cat((x, torch.zeros_like(x)), 1)))
    network.after(joined.convolution_of_concatenation, zeros.convolutions_without_zeros)
    assert network.ops == ["conv"]
    assert network.the("conv").constants["weight"].shape[1] == 3
    assert network.is_right()


def test_what_is_done_to_constants_is_done_beforehand(small, weights):
    w = weights(12, 24)
    network = small(lambda x: F.pixel_shuffle(w(F.pixel_unshuffle(torch.cat((x, torch.ones_like(x)), 1), 2)), 2))
    network.after(joined.unshuffled_concatenations, zeros.of_constants)
    assert network.ops.count("unshuffle") == 1 and network.ops.count("fill") == 1
    assert network.is_right()


def test_concatenations_are_flat(small, weights):
    w = weights(3, 9)
    network = small(lambda x: w(torch.cat((torch.cat((x, x * 2), 1), x * 3), 1))).after(joined.flat_concatenations)
    assert network.ops.count("cat") == 1 and len(network.the("cat").inputs) == 3
    assert network.is_right()


def test_a_difference_of_concatenations_is_taken_piece_by_piece(small, weights):
    w = weights(3, 6)
    network = small(lambda x: w(x.repeat(1, 2, 1, 1) - torch.cat((x * 2, x * 3), 1)))
    assert network.after(joined.pointwise_of_concatenations).ops.count("sub") == 2
    assert network.is_right()


def test_a_convolution_reads_the_maps_of_a_concatenation(small, weights):
    w = weights(3, 6)
    network = small(lambda x: w(torch.cat((x, x * 2), 1))).after(joined.convolution_of_concatenation)
    assert network.ops == ["affine", "conv"] and len(network.the("conv").inputs) == 2
    assert network.is_right()


def test_a_map_read_twice_is_read_once(small, weights):
    w = weights(3, 9)
    network = small(lambda x: w(torch.cat((x, x * 2, x), 1)))
    network.after(joined.convolution_of_concatenation, joined.repeated_sources)
    assert len(network.the("conv").inputs) == 2
    assert network.is_right()


def test_scales_and_orders_merge(small):
    network = small(lambda x: ((x.flip(1) * 2 - 1) / 4).flip(1)).after(affine.merged)
    assert network.ops == ["affine"] and "order" not in network.the("affine").constants
    assert network.is_right()


def test_some_of_the_channels_in_order_are_no_identity(small):
    network = small(lambda x: x.index_select(1, torch.tensor([0, 1])).index_select(1, torch.tensor([0, 1])))
    assert network.after(affine.merged).ops == ["affine"]
    assert network.is_right()


def test_batch_normalisation_goes_into_the_weights(small, weights):
    w = weights(4, 3)
    mean, variance, scale, offset = torch.rand(4, 4).double()
    network = small(
        lambda x: F.batch_norm(w(x), *(each.to(x.dtype) for each in (mean, variance, scale, offset)))
    ).after(affine.into_convolution_before)
    assert network.ops == ["conv"]
    assert network.is_right()


def test_a_reordered_transposed_convolution(small):
    weight = 0.3 * torch.randn(3, 4, 2, 2)
    network = small(lambda x: F.conv_transpose2d(F.avg_pool2d(x, 2), weight.to(x.dtype), stride=2).flip(1) / 2)
    network.after(affine.merged, affine.into_convolution_before)
    assert network.ops == ["pool", "conv"]
    assert network.is_right()


def test_a_scale_before_a_convolution_goes_into_its_weights(small, weights):
    w = weights(4, 3)
    network = small(lambda x: w(x.flip(1) * 2)).after(affine.merged, affine.into_convolution_after)
    assert network.ops == ["conv"]
    assert network.is_right()


def test_an_offset_does_so_only_where_nothing_is_padded(small, weights):
    padded, pointwise = weights(4, 3), weights(4, 3, 1)
    assert small(lambda x: padded(x - 0.5)).after(affine.into_convolution_after).ops == ["affine", "conv"]
    network = small(lambda x: pointwise(x - 0.5)).after(affine.into_convolution_after)
    assert network.ops == ["conv"]
    assert network.is_right()


def test_what_is_done_to_a_sum_is_done_to_its_convolutions(small, weights):
    v, w = weights(3, 3), weights(3, 3)
    network = small(lambda x: (v(x) + w(x)).flip(1) / 2 + 1).after(
        affine.merged, affine.over_sums, affine.into_convolution_before
    )
    assert sorted(network.ops) == ["add", "conv", "conv"]
    assert network.is_right()


def test_a_piece_of_a_concatenation_is_its_part(small):
    network = small(lambda x: torch.cat((x * 2, x * 3), 1)[:, 2:4]).after(pieces.of_concatenations)
    assert network.the("cat").channels == 2 and network.ops.count("slice") == 2
    assert network.is_right()


def test_a_piece_of_a_sum_is_a_sum_of_pieces(small, weights):
    w = weights(6, 3)
    network = small(lambda x: (w(x) * 2 + w(x) * w(x))[:, 3:]).after(pieces.of_pointwise, pieces.of_pointwise)
    assert network.the("add").channels == 3
    assert network.is_right()


def gate(x):
    first, second = x.chunk(2, 1)
    return first * second


def test_a_chunked_convolution_is_two(small, weights):
    w = weights(6, 3)
    network = small(lambda x: gate(w(x))).after(pieces.of_convolutions)
    assert network.ops == ["conv", "conv", "mul"]
    assert network.is_right()


def test_a_chunked_depthwise_convolution_is_two(small, weights):
    v, w = weights(6, 3, 1), weights(6, 1)
    network = small(lambda x: gate(w(v(x), groups=6))).after(pieces.of_convolutions, pieces.of_convolutions)
    assert network.ops == ["conv"] * 4 + ["mul"] or sorted(network.ops) == ["conv"] * 4 + ["mul"]
    assert network.is_right()


def test_a_convolution_that_is_also_wanted_whole_stays(small, weights):
    w, v = weights(6, 3), weights(3, 6)
    network = small(lambda x: gate(w(x)) + v(w(x)))
    network.after(shared.once, pieces.of_convolutions)
    assert network.ops.count("slice") == 2


def test_equal_instructions_are_computed_once(small, weights):
    w = weights(3, 3)
    network = small(lambda x: w(x).relu() + w(x).relu()).after(shared.once)
    assert network.ops == ["conv", "affine", "add"]
    assert network.is_right()


def test_different_weights_are_not_taken_for_equal(small, weights):
    w, v = weights(3, 3), weights(3, 3)
    assert small(lambda x: w(x) + v(x)).after(shared.once).ops.count("conv") == 2


def lstm(pre, c=None, order="ifgo"):
    parts = dict(zip(order, pre.chunk(len(order), 1), strict=True))
    new = parts["i"].sigmoid() * parts["g"].tanh()
    if c is not None:
        new = parts["f"].sigmoid() * c + new
    return parts["o"].sigmoid() * new.tanh(), new


@pytest.mark.parametrize("order", ["ifgo", "gofi"])
def test_the_gates_of_an_lstm_are_one_operation(small, weights, order):
    w = weights(32, 3)
    u = weights(8, 3)
    network = small(lambda x: sum(lstm(w(x), u(x), order))).after(affine.merged, cells.lstm_cells)
    assert network.ops.count("lstm") == 1 and "mul" not in network.ops
    assert network.is_right()
    network.after(pieces.of_convolutions, cells.convolutional_lstms)
    assert network.the("conv_lstm")["gates"] == 4 and network.ops.count("conv") == 1
    assert network.is_right()


def test_a_first_step_has_three_gates(small, weights):
    w = weights(32, 3)
    network = small(lambda x: lstm(w(x), torch.zeros_like(w(x)[:, :8]))[0])
    network.after(zeros.without_zeros, cells.lstm_cells, pieces.of_convolutions, cells.convolutional_lstms)
    assert network.the("conv_lstm")["gates"] == 3 and "second" not in network.ops
    assert network.is_right()


def test_a_forget_bias_goes_into_the_bias(small, weights):
    w, u = weights(32, 3), weights(8, 3)

    def step(x):
        i, f, g, o = w(x).chunk(4, 1)
        return lstm(torch.cat((i, f + 1, g, o), 1), u(x))[0]

    network = small(step)
    network.run = rules.apply(network.run)
    assert sorted(network.ops) == ["conv", "conv_lstm"]
    assert network.is_right()


def test_gates_of_separate_convolutions_are_joined(small, weights):
    gates, u = [weights(8, 3) for _ in range(4)], weights(8, 3)
    network = small(lambda x: lstm(torch.cat([w(x) for w in gates], 1), u(x))[0])
    network.run = rules.apply(network.run)
    assert sorted(network.ops) == ["conv", "conv_lstm"]
    assert network.is_right()


def test_gates_too_narrow_for_the_core_stay_beside_their_convolutions(small, weights):
    w, u = weights(16, 3), weights(4, 3)
    network = small(lambda x: lstm(w(x), u(x))[0])
    network.run = rules.apply(network.run)
    assert "conv_lstm" not in network.ops and "lstm" in network.ops
    assert network.is_right()


def test_gates_that_somebody_else_reads_stay(small, weights):
    w, u, v = weights(16, 3), weights(4, 3), weights(4, 16)
    network = small(lambda x: (lambda pre: lstm(pre, u(x))[0] + v(pre))(w(x)))
    network.run = rules.apply(network.run)
    assert "conv_lstm" not in network.ops
    assert network.is_right()


def test_the_end_of_a_gru_is_an_interpolation(small, weights):
    w, v, u = weights(4, 3), weights(4, 3), weights(4, 3)

    def step(x):
        update = w(x).sigmoid()
        return (1 - update) * v(x) + update * u(x)

    network = small(step).after(shared.once, cells.interpolations)
    assert network.ops.count("lerp") == 1 and "mul" not in network.ops and "add" not in network.ops
    assert network.is_right()


@pytest.mark.parametrize("act", [F.relu, F.relu6, F.silu, F.gelu, torch.tanh, lambda x: F.leaky_relu(x, 0.2)])
def test_a_convolution_takes_its_activation(small, weights, act):
    w = weights(4, 3)
    network = small(lambda x: act(w(x))).after(epilogue.activations)
    assert network.ops == ["conv"]
    assert network.is_right()


def test_convolution_activation_sum_activation_is_one(small, weights):
    w, v, slope = weights(4, 3), weights(4, 3), torch.linspace(-0.5, 0.5, 4)
    network = small(lambda x: F.relu(v(x).tanh() + F.prelu(w(x), slope.to(x.dtype))))
    network.after(epilogue.activations, epilogue.sums, epilogue.activations)
    assert network.ops == ["conv", "conv"]
    assert network.is_right()


def test_a_convolution_that_is_read_twice_keeps_to_itself(small, weights):
    w = weights(4, 3)
    network = small(lambda x: w(x).relu() * w(x)).after(shared.once, epilogue.activations)
    assert network.ops == ["conv", "affine", "mul"]


def test_a_difference_is_a_sum_of_negated_weights(small, weights):
    w, v = weights(3, 3), weights(3, 3)
    network = small(lambda x: x - (v(x) + w(x))).after(epilogue.differences, epilogue.sums)
    assert network.ops == ["conv", "conv"]
    assert network.is_right()


def test_a_sum_of_sums_finds_its_convolutions(small, weights):
    w, v = weights(3, 3), weights(3, 3)
    network = small(lambda x: x.tanh() + (v(x).relu() + w(x).relu())).after(epilogue.activations, epilogue.sums)
    assert network.ops == ["affine", "conv", "conv"]
    assert network.is_right()


def test_a_pixel_shuffle_goes_into_the_store_and_slopes_with_it(small, weights):
    w, slope = weights(12, 12), torch.linspace(-0.5, 0.5, 3)
    network = small(lambda x: F.prelu(F.pixel_shuffle(w(F.pixel_unshuffle(x, 2)), 2), slope.to(x.dtype)) + x)
    network.after(epilogue.shuffles, epilogue.activations, epilogue.sums)
    assert network.ops == ["unshuffle", "conv"]
    assert network.is_right()


def test_a_relu_of_what_is_never_negative_goes(small, weights):
    w, v = weights(4, 3), weights(4, 3)
    network = small(lambda x: F.relu(v(x).relu() + w(x).relu()))
    network.after(epilogue.activations, epilogue.sums, epilogue.activations, sign.needless_relus)
    assert [node["act2"] for node in network.run.nodes] == ["none", "none"]
    assert network.is_right()


def test_a_relu_of_what_may_be_negative_stays(small, weights):
    w, v = weights(4, 3), weights(4, 3)
    network = small(lambda x: F.relu(v(x) + w(x).relu()))
    network.after(epilogue.activations, epilogue.sums, epilogue.activations, sign.needless_relus)
    assert network.run.nodes[-1]["act2"] == "relu"
    assert network.is_right()


def test_what_no_stage_changes_is_hoisted(small, weights):
    w, out = weights(8, 6), weights(3, 8)

    def two_stages(x):
        y = out(w(torch.cat((x, x * 2), 1)).relu())
        return out(w(torch.cat((x, y), 1)).relu())

    network = small(two_stages)
    network.after(joined.convolution_of_concatenation, epilogue.activations, hoist.unchanging_sources, shared.once)
    assert network.ops.count("conv") == 5
    assert sum(node["act2"] == "relu" and node["adds"] for node in network.run.nodes) == 2
    assert network.is_right()


def test_a_single_stage_is_not_hoisted(small, weights):
    w = weights(8, 6)
    network = small(lambda x: w(torch.cat((x, x * 2), 1)))
    assert network.after(joined.convolution_of_concatenation, hoist.unchanging_sources).ops == ["affine", "conv"]


def test_unit_length_over_channels(small, weights):
    w = weights(5, 3)
    network = small(lambda x: F.normalize(w(x), dim=1)).after(shared.once, attention.channel_norms)
    assert network.ops == ["conv", "channel_norm"] and network.the("channel_norm")["kind"] == "length"
    assert network.is_right()


def test_a_layer_norm_over_channels_written_out(small, weights):
    w = weights(5, 3)

    def norm(x):
        y = w(x)
        centred = y - y.mean(1, keepdim=True)
        return centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()

    network = small(norm).after(shared.once, attention.channel_norms)
    assert network.ops == ["conv", "channel_norm"]
    assert network.is_right()


def test_a_layer_norm_of_channels_last(small, weights):
    w = weights(5, 3)
    network = small(lambda x: F.layer_norm(w(x).permute(0, 2, 3, 1), (5,)).permute(0, 3, 1, 2))
    assert network.ops == ["conv", "channel_norm"]
    assert network.is_right()


def test_reading_a_memory(small, weights):
    w, items = weights(16, 3), torch.rand(7, 16)

    def read(x):
        query = w(x)
        memory = items.to(x.dtype)
        flat = query.movedim(1, -1).flatten(0, -2)
        scores = (F.normalize(flat, dim=1) @ F.normalize(memory, dim=1).T).softmax(dim=1)
        return (scores @ memory).reshape(query.shape[0], *query.shape[2:], 16).movedim(-1, 1)

    network = small(read).after(shared.once, attention.channel_norms, attention.memory_reads)
    assert network.ops == ["conv", "memory_read"]
    assert network.is_right()


def test_what_makes_room_comes_early(small, weights):
    """A branch's wide map does not wait for the other branch's."""
    v, w, p, q = weights(16, 3), weights(16, 3), weights(3, 16), weights(3, 16)
    network = small(lambda x: (lambda a, b: x - (p(a) + q(b)))(v(x), w(x)))
    network.after(epilogue.differences, epilogue.sums)
    assert network.run.nodes[1].channels == 16
    network.after(order.early)
    assert [node.channels for node in network.run.nodes] == [16, 3, 16, 3]
    assert network.is_right()


def test_all_rules_are_in_the_list():
    homes = (zeros, joined, attention, affine, cells, pieces, shared, epilogue, sign, hoist, order)
    here = {
        value
        for home in homes
        for name, value in vars(home).items()
        if getattr(value, "__module__", "") == home.__name__
        and getattr(value, "__annotations__", {}).get("run") == "Run"
        and not name.startswith("_")
    }
    assert here == set(rules.ALL)
