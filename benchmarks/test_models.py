"""Networks by every way of running them: `pytest benchmarks --benchmark-only -k models`.

The same rows as `unrain bench MODEL`, held to the same fidelity. By itself a choice that takes minutes; `--models`
names networks to run with all their rows, `--sizes` the sizes, 720p and 1080p too.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from case import Outcome

from unrain import build, load
from unrain.engine.benchmark import backends
from unrain.engine.models import CATALOG, WEIGHTS
from unrain.engine.runtime import fidelity
from unrain.engine.runtime.selection.candidates import candidates

NAMED = {"720p": (720, 1280), "1080p": (1080, 1920)}
# What the usual choice leaves out takes longer to get ready than to measure: torch.compile of the networks that repeat
# no stage, the engine's own trial, int8.
QUICK = ("eager fp32", "channels-last fp32", "channels-last bf16", "fused fp32", "fused bf16", "onnxruntime fp32")
USUAL = {
    ("srn", "256x256"): (*QUICK, "compile fp32", "compile bf16", "openvino fp32", "openvino bf16", "auto fp32"),
    ("srn", "512x512"): QUICK,
    ("brn", "256x256"): QUICK,
    ("stagewise", "256x256"): QUICK,
    ("mspfn-light", "256x256"): QUICK[:3],
    ("mlmcn", "256x256"): QUICK[:3],
    ("timelapse", "256x256"): QUICK,
}


def height_width(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if size in NAMED or match:
        return NAMED[size] if size in NAMED else (int(match[1]), int(match[2]))
    raise pytest.UsageError(f"--sizes takes HEIGHTxWIDTH, 720p or 1080p; got {size!r}")


def chosen(config, device: str) -> list[tuple[str, str, str]]:
    """(model, size, row) of what this session runs."""
    sizes = [size for size in config.getoption("--sizes").split(",") if size]
    names = [name for name in config.getoption("--models").split(",") if name]
    listed = [(name, size) for name in names for size in sizes]
    usual = [] if names else [key for key in USUAL if key[1] in sizes]
    large = [("srn", size) for size in sizes if not names and size not in ("256x256", "512x512")]
    rows = []
    for name, size in [*usual, *large, *listed]:
        wanted = USUAL.get((name, size), QUICK) if not names and device == "cpu" else every_row(device)
        rows += [(name, size, row) for row in wanted]
    return rows


def every_row(device: str) -> list[str]:
    lower = ["bf16"] if device == "cpu" else ["bf16", "fp16"]
    plain = ["eager fp32", "channels-last fp32", *(f"channels-last {each}" for each in lower)]
    tried = [f"{each.backend} {each.precision}" for each in candidates(build("srn"), "cpu")]
    return [*plain, *(row for row in tried if row not in plain), *(f"auto {each}" for each in backends.AUTO)]


def pytest_generate_tests(metafunc):
    device = "cuda" if "gpu" in {mark.name for mark in metafunc.definition.iter_markers()} else "cpu"
    rows = chosen(metafunc.config, device)
    names = [(f"{name} {size}", row) for name, size, row in rows]
    metafunc.parametrize(("name", "contender"), names, ids=[f"{n}-{row}".replace(" ", "_") for n, row in names])


def network(name: str):
    if (WEIGHTS / f"{name}.safetensors").is_file():
        return load(name)
    torch.manual_seed(0)
    return build(name).eval()


def enter(name, contender, compete, request, device="cpu"):
    if (model_name := name.split()[0]) not in CATALOG:
        raise pytest.UsageError(f"--models: no model is called {model_name!r}")
    enter_as("models", network, name, contender, compete, request, device)


def enter_as(suite, network, name, contender, compete, request, device="cpu"):
    """`name` is that of a network and a size; `network` makes it of its name."""
    model_name, size = name.split()
    height, width = height_width(size)
    rounds = request.config.getoption("--rounds") or (5 if device == "cpu" else 30)

    def run_race(names: list[str]) -> dict[str, Outcome]:
        model, picture = network(model_name), fidelity.sample(height, width).to(device)
        found = backends.rows(model, picture, None, lambda backend, precision: f"{backend} {precision}" in names)
        backends.time_rows(found, picture, rounds)
        count = backends.counted(model, picture)
        return {row.key: outcome(row, count(row)) for row in found}

    compete(suite, name, contender, run_race, device)


def outcome(row: backends.Row, counts: dict[str, Any]) -> Outcome:
    reason = row.reason or ""
    wrong = reason.removeprefix("wrong: ") if reason.startswith("wrong") else None
    return Outcome(row.samples, wrong, None if wrong else row.reason, {**counts, **backends.extra(row)})


def test_models(name, contender, compete, request):
    enter(name, contender, compete, request)


@pytest.mark.gpu
def test_models_gpu(name, contender, compete, request):
    enter(name, contender, compete, request, "cuda")
