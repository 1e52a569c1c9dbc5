"""Numbers that pages state and nothing else checks: the arithmetic in docs/deployment.md, counts in docs/models."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import unrain
from unrain.engine.models import CATALOG

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIDE = 32


@pytest.mark.parametrize(("name", "T"), [("stagewise", 12), ("srn", 1), ("srn", 4), ("srn", 6)])
def test_arithmetic_per_pixel(name, T):
    model = unrain.build(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE), T=T)
    per_pixel = counter.get_total_flops() / SIDE**2
    row = f"| `{name}`, T = {T} | {per_pixel / 1e6:.3f} million |"
    for height, width in ((480, 640), (720, 1280)):
        row += f" {per_pixel * height * width / 1e12:.3f} T |"
    row += f" {per_pixel * 720 * 1280 * 30 / 1e12:.1f} T/s |"
    assert row in (DOCS / "deployment.md").read_text()


def test_parameter_counts_of_the_pages_are_those_of_the_catalog():
    """Every network has a row in a table of its page, with its count."""
    text = "".join(page.read_text() for page in sorted((DOCS / "models").glob("*.md")))
    rows = {name: line for line in text.splitlines() for name in re.findall(r"^\| `([\w-]+)` \|", line)}
    for name, entry in CATALOG.items():
        if name == "stagewise":  # alone on its page, without a table
            assert f"{entry.parameters:,} parameters" in (DOCS / "models" / "stagewise.md").read_text()
        else:
            assert f" {entry.parameters:,} " in rows[name], name


def test_the_table_of_quality_is_that_of_the_weights_cards():
    command = [sys.executable, str(DOCS / "figures" / "quality.py"), "--check"]
    assert subprocess.run(command).returncode == 0, "the README is not up to date: python docs/figures/quality.py"
