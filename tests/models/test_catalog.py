"""The registry: every network by name, its parameter count, and what a wrong name or option says."""

import json
import subprocess
import sys

import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.models import CATALOG
from unrain.engine.models.sizing import check_images, pad_to_multiple

NAMES = [
    *("srn", "srn-direct", "srn-gru", "srn-x", "srn-plus"),
    *("brn", "brn-gru", "crn", "brn-r2x", "brn-x2r"),
    "stagewise",
    *("mspfn", "mspfn-m30n1", "mspfn-m17n2", "mspfn-m13n2", "mspfn-m10n3", "mspfn-m8n5", "mspfn-light"),
    *("mlmcn", "mlmcn-n1", "mlmcn-n2", "mlmcn-no-bcm", "mlmcn-no-rmm"),
    *("mlmcn-555", "mlmcn-385", "mlmcn-835", "mlmcn-853"),
    "timelapse",
    *("wiper-s", "wiper", "wiper-l"),
]

PARAMETERS = {
    "srn": 168_963,
    "srn-direct": 168_963,
    "srn-gru": 150_499,
    "srn-x": 168_099,
    "srn-plus": 409_411,
    "brn": 375_526,
    "brn-gru": 320_166,
    "crn": 301_798,
    "brn-r2x": 338_662,
    "brn-x2r": 338_662,
    "stagewise": 17_305,
}


def count(name):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in unrain.build(name).parameters())


def test_every_name_is_listed():
    assert sorted(unrain.models()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_catalog_states_the_parameter_count(name):
    assert count(name) == CATALOG[name].parameters


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_the_parameter_count_is_the_papers(name, expected):
    assert count(name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_those_of_the_catalog(name):
    with torch.device("meta"):
        model = unrain.build(name)
    assert getattr(model, "stages", None) == CATALOG[name].stages
    assert model.name == name


def test_names_come_without_torch():
    code = (
        "import sys, unrain; from unrain.engine.models.catalog import CATALOG;"
        "assert unrain.models() == list(CATALOG); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_wrong_name_says_which_are_near():
    with pytest.raises(UnrainError, match="no model is called 'srnplus'; did you mean srn-plus"):
        unrain.build("srnplus")
    with pytest.raises(UnrainError, match=r"no model is called 'xyzzy'; `unrain models` lists them\."):
        unrain.load("xyzzy")


def test_a_wrong_option_says_which_there_are():
    with pytest.raises(UnrainError, match="srn has no option 'width'; it takes channels, blocks, cell"):
        unrain.build("srn", width=64)
    with pytest.raises(UnrainError, match="cell must be one of lstm, gru, got 'rnn'"):
        unrain.build("brn", cell="rnn")
    with pytest.raises(UnrainError, match="blocks must be a whole number of at least 1, got 0"):
        unrain.build("srn", blocks=0)


def test_overrides_change_the_configuration():
    model = unrain.build("srn-plus", channels=8, stages=2)
    assert (model.config.channels, model.config.blocks, model.stages) == (8, 18, 2)


@pytest.mark.parametrize("name", NAMES)
def test_configurations_are_json(name):
    json.dumps(dict(CATALOG[name].config))


@pytest.mark.parametrize(
    ("height", "width", "multiple"), [(8, 9, 8), (8, 8, 32), (9, 11, 32), (31, 45, 4), (16, 16, 8)]
)
def test_padding_reflects_like_numpy_and_crops_back(height, width, multiple):
    import numpy as np

    x = torch.rand(2, 3, height, width)
    padded, crop = pad_to_multiple(x, multiple)
    extra = ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple))
    assert np.array_equal(padded.numpy(), np.pad(x.numpy(), extra, mode="reflect"))
    assert torch.equal(crop(padded), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(1, 3, 1, 1), "pictures must be at least 8 x 8, got 1 x 1"),
        (torch.rand(1, 3, 7, 20), "pictures must be at least 8 x 8, got 7 x 20"),
        (torch.rand(3, 20, 20), r"expected RGB pictures of shape \[B, 3, H, W\], got \[3, 20, 20\]"),
        (torch.rand(1, 4, 20, 20), "expected RGB pictures"),
        (torch.zeros(1, 3, 20, 20, dtype=torch.uint8), "expected floating-point pictures .*, got uint8"),
    ],
)
def test_unfit_pictures_are_named(x, message):
    with pytest.raises(UnrainError, match=message):
        check_images(x)
