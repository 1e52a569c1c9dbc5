"""The time-lapse memory network: its sizes, its memory against plain loops, and the order of a training step."""

import json
import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

import unrain
from unrain import kernels
from unrain.engine.errors import UnrainError
from unrain.engine.models.timelapse import CHANNELS, Timelapse, TimelapseConfig, flatten_positions

UPDATES = ["soft", "hard"]


def network(**config):
    return Timelapse(TimelapseConfig(**config)).eval()


def queries(*shape):
    """Unit-length queries [B, 64, h, w] in double precision."""
    return F.normalize(torch.randn(shape[0], CHANNELS, *shape[1:], dtype=torch.float64), dim=1)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize(("norm", "parameters"), [(True, 818_115), (False, 815_683)])
def test_parameters(norm, parameters):
    model = unrain.build("timelapse", norm=norm)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert "items" in dict(model.named_buffers()) and "items" not in dict(model.named_parameters())


def test_table_one():
    """Without normalisation: the encoder's and the decoder's share of Table I, 3x3 convolutions with bias."""
    model = network(norm=False)
    assert sum(p.numel() for p in model.encoder.parameters()) == 260_288
    assert sum(p.numel() for p in model.decoder.parameters()) == 555_395


def test_items_start_at_unit_length():
    items = network().items
    assert items.shape == (20, 64) and (items >= 0).all()
    torch.testing.assert_close(items.norm(dim=1), torch.ones(20))
    assert torch.unique(items, dim=0).shape[0] == 20


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (31, 45), (77, 93)])
def test_any_size(norm, size):
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        y = network(norm=norm)(x)
    assert y.shape == x.shape and y.isfinite().all()


def test_double_precision_agrees():
    model = network()
    x = torch.rand(1, 3, 31, 45)
    with torch.inference_mode():
        single, double = model(x), model.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_pictures_of_a_batch_do_not_mix(norm):
    model = network(norm=norm).double()
    x = torch.rand(3, 3, 24, 17, dtype=torch.float64)
    with torch.inference_mode():
        together, apart = model(x), torch.cat([model(one[None]) for one in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


def test_streaks_are_bounded_by_the_double_tanh():
    """However large the decoder's numbers, a pixel changes by at most tanh(1) / 2, and can change by that much."""
    model = network()
    with torch.no_grad():
        model.decoder.output.weight.mul_(1e6)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        change = (model(x) - x).abs().max()
    assert math.tanh(1) / 2 - 1e-3 < change <= math.tanh(1) / 2 + 1e-6


def test_sees_bgr_and_answers_in_rgb():
    model = network()
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rain = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)  # blue, green, red
    model.decoder.register_forward_hook(lambda *_: rain.expand(1, 3, 16, 32))
    x = torch.rand(1, 3, 16, 32)
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(seen[0], torch.stack((x[:, 2], x[:, 1], x[:, 0]), dim=1) * 2 - 1)
    torch.testing.assert_close(x - y, rain.tanh().flip(1).expand_as(x) / 2)


def test_separation_adds_up():
    model = network()
    x = torch.rand(2, 3, 31, 45)
    with torch.inference_mode():
        parts = model.separate(x)
        torch.testing.assert_close(parts.background + parts.rain, x)
        torch.testing.assert_close(parts.background, model(x), rtol=0, atol=0)
        torch.testing.assert_close(parts.rain, model.rain(x), rtol=0, atol=0)
    assert parts.features.shape == parts.query.shape == (2, 64, 4, 6)  # of the picture padded to 32 x 48


def test_features_are_instance_normalised_and_queries_of_unit_length():
    model = network().double()
    bare = []
    model.encoder.register_forward_hook(lambda _, inputs, output: bare.append(output[0]))
    with torch.inference_mode():
        features, skips = model.encode(torch.rand(2, 3, 64, 48, dtype=torch.float64))
        query = model.query(features)
    assert [skip.shape[-2:] for skip in skips] == [(64, 48), (32, 24), (16, 12)]
    mean = bare[0].mean(dim=(2, 3), keepdim=True)
    variance = bare[0].var(dim=(2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(features, (bare[0] - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(query, features / features.norm(dim=1, keepdim=True))


def test_decoder_joins_encoder_first():
    """[query, retrieved] at the bottom, [encoder, upsampled] above it."""
    model = network()
    joined, risen = {}, {}
    for level in (1, 2, 3, 4):
        decode = model.decoder.get_submodule(f"level{level}")
        decode.register_forward_pre_hook(lambda _, inputs, level=level: joined.update({level: inputs[0]}))
    for level in (1, 2, 3):
        up = model.decoder.get_submodule(f"up{level}")
        up.register_forward_hook(lambda _, inputs, output, level=level: risen.update({level: output}))
    with torch.inference_mode():
        features, skips = model.encode(torch.rand(1, 3, 32, 48))
        query = model.query(features)
        retrieved = model.read(query)
        model.decode(query, retrieved, skips)
    assert torch.equal(joined[4], torch.cat((query, retrieved), dim=1))
    for level, skip in zip((1, 2, 3), skips, strict=True):
        assert torch.equal(joined[level], torch.cat((skip, risen[level]), dim=1))


def test_read_against_loops():
    model = network().double()
    query = queries(2, 3, 2)
    read = model.read(query)
    for picture in range(2):
        for row in range(3):
            for column in range(2):
                scores = [math.exp(cosine(query[picture, :, row, column], item)) for item in model.items]
                wanted = sum(score / sum(scores) * item for score, item in zip(scores, model.items, strict=True))
                torch.testing.assert_close(read[picture, :, row, column], wanted)


def test_read_is_a_mixture_of_items():
    model = network().double()
    read = flatten_positions(model.read(queries(2, 5, 7)))
    assert (read >= model.items.min(dim=0).values - 1e-12).all()
    assert (read <= model.items.max(dim=0).values + 1e-12).all()


@pytest.mark.parametrize("rule", UPDATES)
def test_update_against_loops(rule):
    model = network(update=rule).double()
    query = queries(2, 3, 4)
    flat = [query[b, :, row, column] for b in range(2) for row in range(3) for column in range(4)]
    scores = [[cosine(one, item) for item in model.items] for one in flat]
    wanted = []
    for m, item in enumerate(model.items):
        total = sum(math.exp(row[m]) for row in scores)
        weights = [math.exp(row[m]) / total for row in scores]  # softmax over the queries, eq. (5)
        if rule == "hard":
            largest = max(weights)
            weights = [w / largest if row.index(max(row)) == m else 0 for w, row in zip(weights, scores, strict=True)]
        new = item + sum(w * one for w, one in zip(weights, flat, strict=True))
        wanted.append(new / new.norm())
    torch.testing.assert_close(model.update_memory(query), torch.stack(wanted))


@pytest.mark.parametrize("rule", UPDATES)
def test_update_changes_nothing_in_place(rule):
    model = network(update=rule).double()
    query = queries(1, 4, 4).requires_grad_()
    items, kept = model.items.clone(), query.detach().clone()
    new = model.update_memory(query)
    assert not new.requires_grad and not torch.equal(new, items)
    assert torch.equal(model.items, items) and torch.equal(query.detach(), kept)
    torch.testing.assert_close(new.norm(dim=1), torch.ones(20, dtype=torch.float64))


@pytest.mark.parametrize("rule", UPDATES)
def test_memory_agrees_with_the_kernels(rule):
    model = network(update=rule).double()
    query = queries(2, 5, 7)
    flat = flatten_positions(query)
    with kernels.use("reference"):
        read, updated = kernels.memory_read(flat, model.items), kernels.memory_update(flat, model.items, rule=rule)
    torch.testing.assert_close(flatten_positions(model.read(query)), read)
    torch.testing.assert_close(model.update_memory(query), updated)


def test_order_of_a_training_step():
    """View 1 reads the stored items and updates them; view 2 reads those and updates them; the buffer is left alone."""
    model = network().train()
    first, second = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    stored = model.items.clone()
    one, two, items = model.separate_views(first, second)
    assert torch.equal(model.items, stored)
    after_first = model.update_memory(one.query, stored)
    torch.testing.assert_close(items, model.update_memory(two.query, after_first), rtol=0, atol=0)
    torch.testing.assert_close(one.rain, model.separate(first, stored).rain, rtol=0, atol=0)
    torch.testing.assert_close(two.rain, model.separate(second, after_first).rain, rtol=0, atol=0)
    assert not torch.allclose(two.rain, model.separate(second, stored).rain, rtol=0, atol=1e-7)


def test_stored_items_come_back_with_the_state():
    model, other = network(), network()
    model.items = model.update_memory(queries(1, 4, 4).float())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.items, model.items)


@pytest.mark.parametrize("norm", [True, False])
def test_gradients(norm):
    """Every parameter gets one but the unused normalisation; biases that a normalisation cancels get nothing."""
    model = network(norm=norm).double().train()
    model(torch.rand(2, 3, 32, 32, dtype=torch.float64)).square().mean().backward()
    cancelled = []
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.unused_norm"):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if parameter.grad.abs().max() < 1e-15:
            cancelled.append(name)
    with_norm = [f"{name}.bias" for name, layer in model.named_modules() if is_normalised(model, name, layer)]
    assert sorted(cancelled) == sorted([*with_norm, "encoder.level4.1.bias"])


def is_normalised(model, name, layer):
    """Whether a batch normalisation takes this convolution's output, and with it the bias, back to mean 0."""
    if not isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
        return False
    block = model.get_submodule(name.rpartition(".")[0])
    return isinstance(block, torch.nn.Sequential) and len(block) == 3 and isinstance(block[1], torch.nn.BatchNorm2d)


def test_gradient_passes_the_memory_by():
    """What is read carries no gradient: the encoder learns through the query half of the decoder's input."""
    model = network().double()
    query = queries(1, 4, 4).requires_grad_()
    assert not model.read(query).requires_grad


def test_configuration_survives_json():
    config = TimelapseConfig(items=7, norm=False, update="hard")
    assert TimelapseConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("wrong", [{"update": "softer"}, {"items": 0}])
def test_wrong_configuration(wrong):
    with pytest.raises(UnrainError):
        TimelapseConfig(**wrong)
