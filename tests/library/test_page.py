"""docs/c-library.md, word by word: its commands in their order, and its program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from c_library import ROOT, run

PAGE = (ROOT / "docs" / "c-library.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_page_runs_as_it_is_written(checkout, environment, tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    build, export, *rest = blocks("sh")
    shell(build, checkout, {**environment, "HOME": str(home)})
    words = {**environment, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    shell(export, work, words)
    [program] = blocks("c")
    (work / "frame.c").write_text(program)
    (work / "rainy.ppm").write_bytes(b"P6\n64 48\n255\n" + bytes(range(256)) * 36)
    (work / "frames.nv12").write_bytes(bytes(range(256)) * 36)
    words["PATH"] = f"{home}/.local/bin:{words['PATH']}"
    done = shell("\n".join(rest), work, words)
    assert done.stdout.startswith("derained") and "usage: unrain-c" in done.stdout
    assert len((work / "dry.ppm").read_bytes()) == len((work / "rainy.ppm").read_bytes())
    assert len((work / "dry.nv12").read_bytes()) == 256 * 36


@pytest.mark.slow
def test_a_plain_build_compiles_the_core_itself(environment, programs, tmp_path):
    """As a user runs it; what the other tests link is the Python package's."""
    for name in ("csrc", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shell(blocks("sh")[0], tmp_path, {**environment, "HOME": str(tmp_path)})
    (tmp_path / "in.ppm").write_bytes(b"P6\n64 48\n255\n" + bytes(range(256)) * 36)
    run(tmp_path / ".local/bin/unrain-c", programs["wiper-s"], tmp_path / "in.ppm", tmp_path / "out.ppm")


def shell(commands: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return run("bash", "-euc", commands, cwd=folder, env=environment)


def test_the_page_names_every_outcome_and_every_file_that_is_installed(prefix):
    header = (prefix / "include" / "unrain.h").read_text()
    for outcome in re.findall(r"^    (UNRAIN_(?:OK|LATE|PASSTHROUGH|REFUSED))\b", header, re.M):
        assert f"`{outcome}`" in PAGE
    installed = {path.name for path in prefix.rglob("*") if path.is_file()}
    assert {"libunrain.a", "unrain.h", "unrain.pc", "unrainConfig.cmake", "unrain-c"} <= installed
