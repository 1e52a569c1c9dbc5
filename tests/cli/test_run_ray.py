"""`unrain run --ray`: every output there, whole, and written once, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unrain.cli import run_ray
from unrain.cli.main import main
from unrain.cli.plan import Job
from unrain.cli.run_ray import STAGING, Work, Worker, _row, _rows_of, publish, staging_folder
from unrain.engine.errors import UnrainError
from unrain.engine.models import build
from unrain.engine.models.checkpoint import save


@pytest.fixture
def archive(tmp_path):
    """Pictures in two folders, and one that is torn."""
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "in" / ("far" if number % 4 == 0 else "") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "torn.png").write_bytes(b"\x89PNG and no more")
    save(build("srn"), tmp_path / "weights.safetensors")
    return tmp_path


def words(archive, *more):
    out = ["-o", archive / "out", "-r", "-n", "srn", "-w", archive / "weights.safetensors"]
    return [str(word) for word in ["run", archive / "in", *out, "--backend", "eager", "--ray", *more]]


def written(folder):
    """(inode, time) of each finished picture: a file that is written again has others."""
    files = [path for path in folder.rglob("*.png") if STAGING not in path.parts]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_system_without_unix_locks_is_told_so(archive, monkeypatch, capsys):
    monkeypatch.setattr(run_ray, "fcntl", None)  # as on Windows
    assert main(words(archive)) == 1
    assert capsys.readouterr().err == (
        "unrain: --ray needs a system with Unix file locks, such as Linux; leave it out here\n"
    )


def test_a_name_is_given_once(tmp_path):
    target = tmp_path / "a.png"
    for text, overwrite, kept in (("first", False, "first"), ("second", False, "first"), ("third", True, "third")):
        staged = tmp_path / "staged.png"
        staged.write_text(text)
        assert publish(staged, target, overwrite) == (kept == text)
        assert target.read_text() == kept and not staged.exists()


def test_only_abandoned_staging_is_removed(tmp_path):
    dead = tmp_path / STAGING / "dead"
    dead.mkdir(parents=True)
    (dead / "half.png").touch()
    with staging_folder(tmp_path) as one:
        assert not dead.exists()
        with staging_folder(tmp_path) as other:
            assert one.exists() and other.exists() and one != other
        assert one.exists() and not other.exists()
    assert not list(tmp_path.iterdir())


def test_ray_is_for_folders_of_pictures(archive, capsys):
    single = ["run", str(archive / "in" / "01.png"), "-o", str(archive / "one.png"), "--ray"]
    assert main(single) == 1
    assert "--ray derains pictures into a folder" in capsys.readouterr().err


def test_without_ray_one_line_says_what_to_install(archive, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main(words(archive)) == 1
    assert capsys.readouterr().err.strip() == 'unrain: --ray needs Ray Data: pip install "unrain[ray]"'


def test_a_worker_derains_and_says_what_failed(archive, tmp_path):
    """What Ray runs on its machines, without Ray."""
    work = Work(
        "srn", archive / "weights.safetensors", 1, "cpu", 1, "eager", "fp32", {"tile": 64}, 10**6, 95, False, tmp_path
    )
    worker, target = Worker(work), archive / "out" / "01.png"
    target.parent.mkdir()
    ended = [
        worker(_row(number, Job(archive / "in" / name, target))) for number, name in ((3, "01.png"), (4, "torn.png"))
    ]
    assert [(end["number"], end["status"]) for end in ended] == [(3, "done"), (4, "failed")]
    assert whole(target) and "torn.png" in ended[1]["error"]
    assert worker(_row(5, Job(archive / "in" / "02.png", target)))["status"] == "skipped"  # another has the name


def test_an_error_of_the_cluster_is_one_line_with_words():
    def rows():
        try:
            raise ValueError("first line\nthe reason")
        except ValueError as error:
            raise RuntimeError from error
        yield

    with pytest.raises(UnrainError, match=r"^Ray gave up: the reason$"):
        list(_rows_of(SimpleNamespace(iter_rows=rows)))


@pytest.mark.slow
def test_killed_half_way_and_restarted(archive):
    pytest.importorskip("ray", reason="needs ray[data]")
    inputs = written(archive / "in").keys() - {"torn.png"}
    command = [sys.executable, "-m", "unrain.cli.main"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
    said = archive / "said.txt"
    with said.open("w") as stderr:
        first = subprocess.Popen(command + words(archive, "-T", "30"), env=environment, stderr=stderr)
    try:
        deadline = time.monotonic() + 300
        while len(written(archive / "out")) < 4:
            assert first.poll() is None and time.monotonic() < deadline, f"before it was killed: {said.read_text()}"
            time.sleep(0.02)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    time.sleep(5)  # its orphans end
    before = written(archive / "out")
    assert 4 <= len(before) < len(inputs)
    assert all(whole(archive / "out" / name) for name in before)
    again = subprocess.run(command + words(archive, "--json"), env=environment, capture_output=True, text=True)
    assert again.returncode == 1 and "torn.png" in again.stderr
    answer = json.loads(again.stdout)
    assert (answer["done"], answer["skipped"], answer["failed"]) == (len(inputs) - len(before), len(before), 1)
    assert answer["ray"]["workers"] >= 1 and answer["ray"]["pictures_per_second"] > 0
    after = written(archive / "out")
    assert after.keys() == inputs
    assert {name: after[name] for name in before} == before
    assert all(whole(archive / "out" / name) for name in after)
    assert not [path for path in (archive / "out").rglob("*") if path.name.startswith(".") or ".part" in path.name]


def whole(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.size == (120, 96)
