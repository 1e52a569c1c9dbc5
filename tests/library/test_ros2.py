"""The recipe for a ROS 2 node, as far as a compiler can tell without ROS 2: with stand-ins for its declarations."""

import shutil
from pathlib import Path

import pytest
from c_library import ROOT, run

NODE = ROOT / "examples" / "ros2" / "derain_node.cpp"


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler on this machine")
def test_the_node_compiles(tmp_path):
    folders = (ROOT / "csrc" / "include", Path(__file__).parent / "ros2")
    words = ("-std=c++17", "-Wall", "-Wextra", "-Werror", *(f"-I{folder}" for folder in folders))
    run("c++", *words, "-c", NODE, "-o", tmp_path / "node.o")
    calls = run("nm", "-u", tmp_path / "node.o").stdout
    assert {"unrain_process", "unrain_context_open", "unrain_program_close"} <= set(calls.split())
