"""What hubs read: hubconf.py of torch.hub, and the heads of the cards."""

import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from unrain.engine.models import CATALOG, WEIGHTS, load

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted(WEIGHTS.glob("*.md"))


def test_every_network_is_an_entry_for_torch_hub():
    spec = spec_from_file_location("hubconf", ROOT / "hubconf.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    entries = [name for name, found in vars(module).items() if callable(found) and not name.startswith("_")]
    assert entries == list(CATALOG)  # what torch.hub.list shows of a repository
    assert all(vars(module)[name].__doc__ for name in entries)


def test_torch_hub_gives_the_network_with_its_weights():
    picture = torch.rand(1, 3, 24, 32)
    model = torch.hub.load(str(ROOT), "srn", source="local")
    with torch.no_grad():
        assert torch.equal(model(picture), load("srn")(picture))
    assert torch.hub.load(str(ROOT), "srn-gru", source="local").config.cell == "gru"
    with pytest.raises(ValueError, match="leave out stages"):
        torch.hub.load(str(ROOT), "srn", source="local", pretrained=True, stages=3)


def test_a_clone_serves_where_nothing_is_installed(tmp_path):
    program = f"""
import sys
sys.meta_path = [each for each in sys.meta_path if "editable" not in str(each)]
import torch
model = torch.hub.load({str(ROOT)!r}, "wiper", source="local")
import unrain
print(unrain.__file__, model.name, tuple(model(torch.rand(1, 3, 16, 16)).shape))
"""
    environment = {**os.environ, "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["wiper", "(1,", "3,", "16,", "16)"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_the_head_of_a_card_is_what_model_hubs_read_and_says_what_the_card_says(card):
    yaml = pytest.importorskip("yaml")
    _, head, body = card.read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(head)
    assert (found["license"], found["library_name"]) == ("apache-2.0", "unrain")
    assert found["pipeline_tag"] == "image-to-image" and "deraining" in found["tags"]
    [index] = found["model-index"]
    assert index["name"] == card.stem and card.stem in CATALOG
    [result] = index["results"]
    assert set(result) == {"task", "dataset", "metrics"} and result["dataset"]["name"] == "Rain100L"
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    row = re.search(r"\| Rain100L \(Y-PSNR, dB\) \| [\d.]+ \| ([\d.]+) \|\n\| SSIM of Y \| [\d.]+ \| ([\d.]+) \|", body)
    assert (values["psnr"], values["ssim"]) == tuple(map(float, row.groups()))


def test_every_file_of_weights_has_a_card():
    assert {card.stem for card in CARDS} == {path.stem for path in WEIGHTS.glob("*.safetensors")}
