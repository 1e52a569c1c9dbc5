"""Weights in files: what is saved comes back, and what does not fit is one line that says where."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as read_tensors
from safetensors.torch import save_file

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.models import checkpoint

SMALL = {"channels": 4, "blocks": 1}


@pytest.fixture
def small():
    """An SRN of a few hundred weights."""
    return unrain.build("srn", **SMALL)


@pytest.fixture
def saved(small, tmp_path):
    path = tmp_path / "small.safetensors"
    checkpoint.save(small, path, data="a few pictures", psnr=26.9)
    return path


def rewrite(path, change_tensors=None, change_card=None):
    """Save the file again with its tensors or its metadata changed."""
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["unrain"])
    if change_tensors:
        change_tensors(tensors)
    if change_card:
        change_card(card)
    save_file(tensors, path, {"unrain": json.dumps(card)})


@pytest.mark.parametrize("name", ["srn", "srn-gru", "brn-x2r", "stagewise"])
def test_what_is_saved_comes_back(name, tmp_path):
    model = unrain.build(name)
    model.stages = 3
    checkpoint.save(model, tmp_path / "a.safetensors")
    loaded = unrain.load(tmp_path / "a.safetensors")
    assert (loaded.name, loaded.stages, loaded.config, loaded.training) == (name, 3, model.config, False)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    x = torch.rand(1, 3, 9, 10)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model.eval()(x))


@pytest.mark.parametrize("name", ["mspfn-light", "mlmcn-555", "timelapse"])
def test_networks_without_stages_come_back(name, tmp_path):
    model = unrain.build(name)
    checkpoint.save(model, tmp_path / "a.safetensors")
    loaded = unrain.load(tmp_path / "a.safetensors")
    assert (loaded.name, loaded.config) == (name, model.config)
    for key, value in model.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype and torch.equal(loaded.state_dict()[key], value)


def test_the_card_travels_with_the_weights(saved):
    card = checkpoint.read_card(saved)
    assert (card["format"], card["model"], card["stages"]) == (1, "srn", 6)
    assert card["config"] | SMALL == card["config"]
    assert (card["data"], card["psnr"]) == ("a few pictures", 26.9)
    assert unrain.load(saved).card == card


def test_half_files_are_half_the_size_and_load_as_fp32(small, saved, tmp_path):
    checkpoint.save(small, tmp_path / "half.safetensors", half=True)
    loaded = unrain.load(tmp_path / "half.safetensors")
    assert {value.dtype for value in read_tensors(tmp_path / "half.safetensors").values()} == {torch.float16}
    for key, value in small.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[key], value.half().float())


def test_half_files_keep_buffers_exact(tmp_path):
    model = unrain.build("srn", **SMALL)
    model.register_buffer("count", torch.tensor(7))
    model.register_buffer("variance", torch.tensor([1e-7]))
    checkpoint.save(model, tmp_path / "half.safetensors", half=True)
    kept = read_tensors(tmp_path / "half.safetensors")
    assert kept["count"] == 7 and kept["variance"].dtype == torch.float32 and kept["variance"] == 1e-7


def test_fp64_and_channels_last_models_come_back_as_fp32(tmp_path):
    model = unrain.build("srn", **SMALL).double().to(memory_format=torch.channels_last)
    checkpoint.save(model, tmp_path / "a.safetensors")
    loaded = unrain.load(tmp_path / "a.safetensors")
    assert all(torch.equal(value, model.state_dict()[key].float()) for key, value in loaded.state_dict().items())


def test_loading_leaves_the_random_numbers_alone(saved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    unrain.load(saved)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_model_name_the_first_mismatching_key(saved, tmp_path):
    with pytest.raises(UnrainError) as error:
        unrain.load("brn", saved)
    assert "holds weights of srn, not of brn (first mismatching key: rain.f_in.weight is missing)" in str(error.value)
    checkpoint.save(unrain.build("srn"), tmp_path / "srn.safetensors")
    with pytest.raises(UnrainError, match=r"holds weights of srn, not of srn-direct\.$"):
        unrain.load("srn-direct", tmp_path / "srn.safetensors")
    with pytest.raises(UnrainError, match="no model is called 'brnn'; did you mean brn"):
        unrain.load("brnn", saved)


def test_the_first_mismatch_is_named(saved):
    key = "branch.f_out.bias"
    changes = [
        (lambda tensors: tensors.pop(key), rf"{key} is missing"),
        (lambda tensors: tensors.update({key: torch.zeros(4)}), rf"{key} is \[4\] where \[3\] is expected"),
        (lambda tensors: tensors.update({key: torch.zeros(3, dtype=torch.int32)}), f"{key} holds whole numbers"),
        (lambda tensors: tensors.update({key: torch.zeros(3), "extra": key_less}), "'extra' is not a weight of this"),
        (lambda tensors: tensors.update({key: torch.tensor([0.0, float("nan"), 0.0])}), f"{key} holds NaN"),
    ]
    key_less = torch.zeros(1)
    original = saved.read_bytes()
    for change, message in changes:
        saved.write_bytes(original)
        rewrite(saved, change_tensors=change)
        with pytest.raises(UnrainError, match=message):
            unrain.load(saved)


def test_untrusted_metadata(saved):
    changes = [
        (lambda card: card["config"].update(channels=10**9), r"'channels' = 1000000000, which is not plausible"),
        (lambda card: card["config"].update(channels=float("nan")), r"'channels' = nan, which is not plausible"),
        (lambda card: card["config"].update(blocks=[1, 10**9]), r"'blocks' = 1000000000, which is not plausible"),
        (lambda card: card["config"].update(channels="many"), "channels must be a whole number"),
        (lambda card: card["config"].update(colour="red"), "srn has no option 'colour'"),
        (lambda card: card["config"].update(channels=8), "does not fit srn: branch.f_in.weight is"),
        (lambda card: card.update(config=[]), "is not a set of options"),
        (lambda card: card.update(stages=10**6), "'stages' = 1000000, which is not plausible"),
        (lambda card: card.update(stages=0), "stages = 0, which is not a number of stages"),
        (lambda card: card.update(stages="six"), "stages = 'six', which is not a number of stages"),
        (lambda card: card.update(model="gpt"), "no model is called 'gpt'"),
        (lambda card: card.update(format=2), "has format 2, this version reads 1; update unrain"),
        (lambda card: card.pop("model"), "does not say which network it belongs to"),
    ]
    original = saved.read_bytes()
    for change, message in changes:
        saved.write_bytes(original)
        rewrite(saved, change_card=change)
        with pytest.raises(UnrainError, match=message) as error:
            unrain.load(saved)
        assert "\n" not in str(error.value)


def test_files_that_are_no_safetensors(saved, tmp_path):
    whole = saved.read_bytes()
    broken = {
        "empty": b"",
        "text": b"hello\n" * 100,
        "cut": whole[: len(whole) // 2],
        "long header": struct.pack("<Q", 2**60) + whole[8:],
    }
    for what, content in broken.items():
        saved.write_bytes(content)
        for reader in (unrain.load, checkpoint.read_card):
            with pytest.raises(UnrainError, match="cannot be read as safetensors") as error:
                reader(saved)
            assert "\n" not in str(error.value), what
    for metadata in (None, {"unrain": "[" * 10**5}, {"unrain": "[]"}, {"other": "{}"}):
        save_file({"a": torch.zeros(1)}, saved, metadata)
        with pytest.raises(UnrainError, match="does not say which network it belongs to"):
            unrain.load(saved)
    with pytest.raises(UnrainError, match="is not there"):
        unrain.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(UnrainError, match="is a directory"):
        unrain.load(tmp_path)


def test_names_without_shipped_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("unrain.engine.models.WEIGHTS", tmp_path)
    with pytest.raises(
        UnrainError, match=r"no weights for srn are shipped; .*`unrain train srn`.*`unrain convert FILE`"
    ):
        unrain.load("srn")
    checkpoint.save(unrain.build("srn"), tmp_path / "srn.safetensors", half=True)
    assert unrain.load("srn").name == "srn"


def test_nothing_half_written(small, saved, tmp_path, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UnrainError, match=r"small\.safetensors cannot be written: No space left on device"):
        checkpoint.save(small, saved)
    assert saved.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [saved.name]


def test_unwritable_places(small, tmp_path):
    with pytest.raises(UnrainError, match="cannot be written: No such file or directory"):
        checkpoint.save(small, tmp_path / "missing" / "a.safetensors")
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(UnrainError, match="cannot be written: Is a directory"):
        checkpoint.save(small, tmp_path / "taken.safetensors")
    assert [item.name for item in tmp_path.iterdir()] == ["taken.safetensors"]


def test_weights_that_are_no_numbers_are_not_saved(small, tmp_path):
    with torch.no_grad():
        small.branch.f_out.bias[0] = 1e6
    checkpoint.save(small, tmp_path / "a.safetensors")
    with pytest.raises(UnrainError, match=r"branch\.f_out\.bias holds NaN or infinite numbers; srn is not saved"):
        checkpoint.save(small, tmp_path / "b.safetensors", half=True)
    assert not (tmp_path / "b.safetensors").exists()


def test_a_model_of_unknown_name_is_not_saved(tmp_path):
    model = unrain.build("srn", **SMALL)
    model.name = "mine"
    with pytest.raises(UnrainError, match="no model is called 'mine'"):
        checkpoint.save(model, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "config", "stages"),
    [
        ("mspfn", {"modules": 1024, "units": 1024}, None),
        ("srn", {"blocks": 1024}, 6),
        ("stagewise", {"stages": 1024}, 12),
        ("mlmcn", {"depths": [1024, 1024, 1024]}, None),
    ],
)
def test_a_tiny_file_does_not_take_the_machines_memory(tmp_path, monkeypatch, name, config, stages):
    """Millions of layers without a number in them are gigabytes, too."""
    path = tmp_path / "tiny.safetensors"
    card = {"format": 1, "model": name, "config": config, "stages": stages}
    save_file({"x": torch.zeros(1)}, path, {"unrain": json.dumps(card)})
    assert path.stat().st_size < 300
    made = []
    real = torch.nn.Module.register_parameter
    monkeypatch.setattr(torch.nn.Module, "register_parameter", lambda *args: made.append(1) or real(*args))
    with pytest.raises(UnrainError, match=r"its configuration asks for more than its 1 weights|no option") as error:
        unrain.load(path)
    assert "\n" not in str(error.value) and len(made) < 100


def test_a_network_built_meanwhile_in_another_thread_is_not_counted(saved):
    with checkpoint._at_most(1, saved, "srn"), ThreadPoolExecutor(1) as pool:
        assert len(list(pool.submit(unrain.build, "mspfn-light").result().parameters())) > 100
