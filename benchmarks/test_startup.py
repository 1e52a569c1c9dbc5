"""What a user waits for before anything happens, each in a process of its own: `-k startup`."""

import subprocess
import sys

import pytest
from case import Outcome

from unrain.engine.benchmark.timing import interleaved

PROGRAM = [sys.executable, "-m", "unrain.cli.main"]
FIRST_PICTURE = "import unrain, numpy; unrain.Engine('stagewise', 'eager', 'fp32')(numpy.zeros((32, 32, 3), 'uint8'))"
# The floor of each is what Python, or torch, takes by itself.
CASES = {
    "import": {
        "unrain": [sys.executable, "-c", "import unrain"],
        "python alone": [sys.executable, "-c", "pass"],
    },
    "import of what computes": {
        "unrain": [sys.executable, "-c", "from unrain import ConvLSTMCell, Engine"],
        "torch alone": [sys.executable, "-c", "import torch"],
    },
    "command line, help": {
        "unrain": [*PROGRAM, "--help"],
        "python with typer alone": [sys.executable, "-c", "import typer"],
    },
    "first picture of 32 x 32": {
        "unrain": [sys.executable, "-c", FIRST_PICTURE],
        "torch alone": [sys.executable, "-c", "import torch"],
    },
}


@pytest.mark.parametrize(("name", "contender"), [(case, each) for case, words in CASES.items() for each in words])
def test_startup(name, contender, compete, request):
    def run_race(names):
        found, runs = {}, {}
        for each in names:
            command = CASES[name][each]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = done.stderr.strip().splitlines() or ["no word"]
            found[each] = Outcome(wrong=f"exit code {done.returncode}: {lines[-1]}" if done.returncode else None)
            if not done.returncode:
                runs[each] = lambda command=command: subprocess.run(command, capture_output=True, check=True)
        for each, samples in interleaved(runs, request.config.getoption("--rounds") or 5, warmups=1).items():
            found[each].samples = samples
        return found

    compete("startup", name, contender, run_race)
