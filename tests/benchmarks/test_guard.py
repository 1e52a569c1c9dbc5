"""Native ops take no more instructions, and Triton kernels no more registers and memory, than was committed."""

import json
import shutil

import guard
import pytest

FIGURES = json.loads(guard.FIGURES.read_text())
OP = {"conv": "conv3x3", "conv_gradient": "conv3x3"}  # the op is one form of the core's convolution


def test_native_ops_take_no_more_instructions(tmp_path):
    reason = guard.native_reason(FIGURES)
    if reason is not None:
        pytest.skip(reason)
    problems = guard.worse_counts(guard.native_counts(tmp_path), FIGURES["instructions"])
    assert not problems, "\n".join([*problems, "if it is meant: python benchmarks/guard/guard.py --update"])


@pytest.mark.slow
def test_triton_kernels_take_no_more_registers_and_memory():
    triton = pytest.importorskip(
        "triton", reason="kernels are compiled ahead of time by triton, which is not installed"
    )
    if triton.__version__ != FIGURES["triton"]:
        pytest.skip(f"the figures are of triton {FIGURES['triton']}, this is {triton.__version__}")
    problems = guard.worse_resources(guard.kernel_resources(), FIGURES["resources"])
    assert not problems, "\n".join([*problems, "if it is meant: python benchmarks/guard/guard.py --update"])


def test_a_twentieth_more_instructions_is_too_much():
    figures = FIGURES["instructions"]
    name = next(iter(figures))
    assert not guard.worse_counts(dict(figures), figures)
    (problem,) = guard.worse_counts({**figures, name: round(figures[name] * 1.05)}, figures)
    assert problem.startswith(name) and "+5.0%" in problem
    assert guard.worse_counts({name: 1}, figures), "an op that is no longer counted is a problem"


def test_one_byte_of_spills_is_too_much():
    figures = FIGURES["resources"]
    name = next(iter(figures))
    assert not guard.worse_resources(figures, figures)
    assert guard.worse_resources({**figures, name: {**figures[name], "spills": 8}}, figures) == [
        f"{name}: spills 8, 0 committed"
    ]


def test_every_native_op_is_counted():
    counted = {name.rsplit("_", 1)[0] for name in FIGURES["instructions"]}
    tier = (guard.CSRC / "ops.h").read_text().split("struct Tier {")[1].split("};")[0]
    ops = {line.split("(*")[1].split(")")[0] for line in tier.splitlines() if "(*" in line}
    assert counted == {OP.get(op, op) for op in ops}


def test_it_says_why_it_cannot_count(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert guard.native_reason() == "valgrind is not installed"
