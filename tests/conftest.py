"""What every test may ask for: the reference data, a command line that is run, weights in a file; and a fixed seed."""

import logging
import os
import signal
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
LONG = ("csrc", "library", "kernels", "program")
SHARED = Path(os.environ.get("UNRAIN_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def plain_log(monkeypatch):
    """A command that a test or a fixture calls takes the runtime's lines to stderr; every test begins as on import."""
    log = logging.getLogger("unrain.runtime")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    log.setLevel(logging.NOTSET)


@pytest.fixture
def shared():
    """`shared("data/eval/Rain100L")` is that path of the reference data.

    The test is skipped, with the reason, where the data is missing or a copy of it broke off and left empty files.
    """

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"reference data {relative} is not there (set UNRAIN_SHARED to the folder that holds it)")
        files = path.rglob("*") if path.is_dir() else [path]
        empty = sum(each.is_file() and each.stat().st_size == 0 for each in files)
        if empty:
            pytest.skip(f"reference data {relative} is damaged: {empty} of its files are empty")
        return path

    return find


@pytest.fixture
def unrain_run(capfd):
    """Run one command line in this process: exit code, stdout, stderr."""
    from unrain.cli.main import main

    def run(*words) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """`saved(model)` is the path of a file with its weights; what else is said stands in the file's card."""
    from unrain.engine.models.checkpoint import save

    def write(model, **card) -> str:
        path = tmp_path_factory.mktemp("weights") / f"{model.name}.safetensors"
        save(model, path, **card)
        return str(path)

    return write


@pytest.fixture(autouse=True, scope="session")
def no_trials(tmp_path_factory):
    """An engine that may choose takes the first faithful backend; the tests of the trial itself ask for one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("UNRAIN_TRIAL_SECONDS", "0")
        yield


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    """A program started in the background of a shell ignores ctrl-C, and so would the programs that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU on this machine"))
    # Of what two processes take in turns, file by file, the long ones come first.
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.parent.name) in LONG else len(LONG))
