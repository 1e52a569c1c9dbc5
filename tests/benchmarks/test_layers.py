"""`unrain bench --layers`: every instruction of a program has its time."""

import json

import pytest
import torch

import unrain
from unrain.engine.benchmark.layers import layers
from unrain.engine.program.explain import listing
from unrain.engine.program.runner import available

pytestmark = pytest.mark.skipif(available() is not None, reason=f"the compiled part is not here: {available()}")
NARROW = {"half": 4, "quarter": 4, "eighth": 4, "hidden": 8}


def test_a_frame_that_goes_on_from_a_state_is_timed_by_its_instructions():
    model = unrain.build("wiper-s", **NARROW).eval()
    rows = layers(model, torch.rand(1, 3, 40, 56), "fp32", 3)
    run = unrain.record(model).runs[1]
    assert [row.op for row in rows] == ["picture in", *(each.op for each in run.instructions), "picture out"]
    assert all(row.milliseconds > 0 for row in rows)
    assert sum(row.operations for row in rows) > 0 and rows[1].module


def test_a_recurrence_is_timed_with_all_its_stages():
    model = unrain.build("srn", channels=8, blocks=1, stages=3).eval()
    rows = layers(model, torch.rand(2, 3, 24, 40), "fp32", 3)
    program = unrain.record(model)
    assert len(rows) == 2 + sum(each.only_for_mark in (0, 3) for each in program.runs[0].instructions)
    kilo = float(listing(program).split(" kMAC/pixel")[0].rpartition(" ")[2])
    done = sum(row.operations for row in rows) / 2 / (2 * 24 * 40) / 1000
    assert 0 < done <= kilo + 0.05  # what other stages alone want is left out


def test_the_command_prints_them(capsys):
    from unrain.cli.main import main

    assert main(["bench", "wiper-s", "--layers", "--size", "64x64", "--rounds", "3", "--threads", "1", "--json"]) == 0
    assert {"op", "module", "operations", "milliseconds"} == set(json.loads(capsys.readouterr().out)[0])
    assert main(["bench", "wiper-s", "--layers", "--size", "64x64", "--rounds", "3", "--precision", "fp16"]) == 1
    assert "its layers cannot be timed: on a CPU it computes in fp32 or bf16, not in fp16" in capsys.readouterr().err
