"""The file: what is written is what is read, whatever happens to it in between."""

import pytest
import torch
from torch import nn

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.program.explain import reach
from unrain.engine.program.file import HEADER_BYTES, decoded


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.PReLU(5), nn.Conv2d(5, 3, 3, padding=1))
    return unrain.record(model.eval())


@pytest.fixture(scope="module")
def staged():
    return unrain.record(unrain.build("srn", stages=3, blocks=1))


def test_it_is_read_as_it_was_written(staged):
    again = decoded(staged.data)
    assert again.runs == staged.runs and again.card == staged.card and again.data == staged.data
    assert all(torch.equal(a, b) for a, b in zip(again.constants, staged.constants, strict=True))


def test_a_saved_program_computes_the_same(program, tmp_path):
    program.save(tmp_path / "small.unrain")
    x = torch.rand(1, 3, 11, 9)
    assert torch.equal(unrain.Program.load(tmp_path / "small.unrain")(x), program(x))
    assert [each.name for each in tmp_path.iterdir()] == ["small.unrain"]


def test_one_that_cannot_be_written_leaves_nothing(program, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UnrainError, match="cannot be written"):
        program.save(tmp_path / "taken")
    with pytest.raises(UnrainError, match="cannot be written"):
        program.save(tmp_path / "file" / "small.unrain")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "taken"]


def test_one_that_is_not_there(tmp_path):
    with pytest.raises(UnrainError, match=r"none\.unrain cannot be read"):
        unrain.Program.load(tmp_path / "none.unrain")


def test_sections_are_aligned_and_the_header_has_256_bytes(program):
    places = [int.from_bytes(program.data[at : at + 8], "little") for at in range(96, 96 + 7 * 8, 8)]
    assert places[0] == HEADER_BYTES and all(place % 64 == 0 for place in places)
    assert int.from_bytes(program.data[48:56], "little") == len(program.data)


def test_every_truncation_is_one_line(program):
    for length in range(len(program.data)):
        with pytest.raises(UnrainError) as caught:
            decoded(program.data[:length])
        assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_noticed_or_changes_nothing(program):
    data = bytearray(program.data)
    unnoticed = 0
    for at in range(len(data)):
        data[at] ^= 0xFF
        try:
            again = decoded(bytes(data))
        except UnrainError:
            pass
        else:  # a table or block that is said to be longer than what is used of it, or the header's end
            unnoticed += not 200 <= at < HEADER_BYTES
            assert (again.runs, again.multiple, again.card) == (program.runs, program.multiple, program.card)
            assert all(torch.equal(a, b) for a, b in zip(again.constants, program.constants, strict=True))
        data[at] ^= 0xFF
    assert unnoticed < 8


def test_weights_are_stored_once_and_in_half_where_that_is_exact(staged):
    """Two runs of three stages share them; a sum of two numbers of 16 bits need not fit in 16."""
    model = unrain.build("srn", stages=3, blocks=1)
    floats = sum(each.numel() for each in staged.constants)
    own = sum(each.numel() for each in model.parameters())
    extra = 32 * 3 * 9 + 96 * 32 * 9 + 96  # of a first stage: the pictures' weights added, the gates without forgetting
    assert floats == own + extra
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(each.half())
    halved = unrain.record(model)
    exact = [each for each in halved.constants if each.dtype == torch.float16]
    assert sum(each.numel() for each in exact) == own + extra - 32 * 3 * 9
    assert len(halved.data) < 0.55 * len(staged.data)


def test_the_listing_says_what_was_fused_and_what_it_costs(staged):
    text = staged.describe()
    assert "branch.f_res.0.conv2: conv2d + relu + add + relu" in text
    assert "-- stage 1" in text and "from given states" in text
    pictures, blocks, gates = 9 * 32 * 3 * (4 + 3), 3 * 2 * 9 * 32 * 32, 9 * 32 * 96 + 2 * 9 * 64 * 128
    total = pictures + blocks + gates
    assert f"{len(staged.runs[0].instructions)} instructions, {total / 1000:.1f} kMAC/pixel" in text


def test_how_far_it_sees(program, staged):
    assert reach(program) == 2
    assert reach(staged) == 3 * 5
    assert reach(unrain.record(nn.Sequential(nn.MaxPool2d(2), nn.ConvTranspose2d(3, 3, 2, 2)).eval())) == 2
    assert reach(unrain.record(nn.Sequential(nn.Conv2d(3, 3, 3, padding=4, dilation=4)).eval())) == 4


def test_what_sees_the_whole_picture():
    class Dimmed(nn.Module):
        def forward(self, x):
            return x - x.mean((2, 3), keepdim=True)

    assert reach(unrain.record(Dimmed())) is None
