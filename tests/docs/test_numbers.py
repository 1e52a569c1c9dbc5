"""Numbers that pages state and nothing else checks: the arithmetic in docs/deployment.md, counts in docs/models."""

import json
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


FP16 = {  # multiplications and bytes a second, of data sheets
    "Orin Nano Super": (8.4e12, 102e9),
    "Orin NX 16 GB": (7.5e12, 102e9),
    "AGX Orin 64 GB": (21e12, 205e9),
    "Thor T5000": (130e12, 273e9),
}


def test_estimates_for_devices_that_were_not_at_hand():
    text = (DOCS / "deployment.md").read_text()
    shares = {"wiper": 0.2, "wiper-s": 0.1}
    counted = {name: counts(unrain.build(name).eval()) for name in shares}
    for name, (multiplied, moved) in counted.items():
        row = f"| `{name}` | {2 * multiplied / 1e6:.3f} million |"
        row += "".join(f" {2 * multiplied * pixels / 1e12:.3f} T |" for pixels in (480 * 640, 720 * 1280))
        assert f"{row} {2 * multiplied * 720 * 1280 * 30 / 1e12:.1f} T/s |" in text
        assert f"{moved:.0f}" in text
    for device, (rate, bandwidth) in FP16.items():
        row = f"| {device}, {rate / 1e12:g} T, {bandwidth / 1e9:.0f} G |"
        for name, share in shares.items():
            times = [
                max(counted[name][0] / (rate * part), counted[name][1] / bandwidth) * 720 * 1280 * 1e3
                for part in (share, share / 2)
            ]
            row += f" {times[0]:.1f} to {times[1]:.1f} |"
        assert row in text


def counts(model):
    """Multiplications per pixel, and bytes of half-precision maps that its convolutions read and write."""
    found = [0, 0]

    def count(layer, inputs, output):
        found[0] += layer.weight[0].numel() * output[0].numel()
        found[1] += 2 * (inputs[0].numel() + output.numel())

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE))
    return [each / SIDE**2 for each in found]


def test_parameter_counts_of_the_pages_are_those_of_the_catalog():
    """Every network has a row in a table of its page, with its count."""
    text = "".join(page.read_text() for page in sorted((DOCS / "models").glob("*.md")))
    rows = {name: line for line in text.splitlines() for name in re.findall(r"^\| `([\w-]+)` \|", line)}
    for name, entry in CATALOG.items():
        if name == "stagewise":  # alone on its page, without a table
            assert f"{entry.parameters:,} parameters" in (DOCS / "models" / "stagewise.md").read_text()
        else:
            assert f" {entry.parameters:,} " in rows[name], name


def test_times_of_other_projects_are_those_of_the_results():
    file = DOCS.parent / "benchmarks" / "results" / "amd-epyc-2-cores-avx2" / "compile.json"
    rows = {(row["case"], row["contender"]): row for row in json.loads(file.read_text())["rows"] if row["median_ms"]}
    page = (DOCS / "in-your-project.md").read_text()
    for project in dict.fromkeys(case.removesuffix(", training") for case, _ in rows if case.endswith(", training")):
        cells = [
            f"{rows[f'{project}, {mode}', way]['median_ms']:.1f}"
            for mode in ("inference", "training")
            for way in ("eager", "torch.compile", "unrain")
        ]
        first = [rows[f"{project}, training", way]["first_call_ms"] for way in ("torch.compile", "unrain")]
        cells += [f"{each / 1e3:.1f}" for each in first]
        assert f"| {project} | {' | '.join(cells)} |" in page


def test_the_table_of_quality_is_that_of_the_weights_cards():
    command = [sys.executable, str(DOCS / "figures" / "quality.py"), "--check"]
    assert subprocess.run(command).returncode == 0, "the README is not up to date: python docs/figures/quality.py"
