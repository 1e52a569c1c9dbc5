"""The Makefile's two commands in their order, with a pip that only writes down what it was asked for."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pins(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if "==" in line)


PINS = pins(ROOT / "constraints.txt")
# .venv's python: its pip keeps the constraints it was given, and brings torch as they say where there is none.
PYTHON = """\
#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then
    for word in "$@"; do
        case "$before" in -c) cat "$word" > "$0.constraints" ;; esac
        before="$word"
        last="$word"
    done
    echo "$last" >> "$0.installed"
    [ -e "{packages}"/torch-*.dist-info ] || {real} "{maker}" torch "{pinned}"
    exit 0
fi
PYTHONPATH="{packages}" exec {real} -S "$@"
"""
MAKER = """\
import sys
from pathlib import Path
name, version, *asks = sys.argv[1:]
folder = Path({packages!r}) / f"{{name}}-{{version}}.dist-info"
folder.mkdir(parents=True)
lines = [f"Metadata-Version: 2.1", f"Name: {{name}}", f"Version: {{version}}", *(f"Requires-Dist: {{a}}" for a in asks)]
(folder / "METADATA").write_text("\\n".join(lines) + "\\n")
"""


class Clone:
    """A checkout's Makefile over a .venv whose packages are names alone."""

    def __init__(self, folder: Path, arriving: str) -> None:
        self.venv, self.packages, self.maker = folder / ".venv", folder / "packages", folder / "maker.py"
        (self.venv / "bin").mkdir(parents=True)
        self.packages.mkdir()
        self.maker.write_text(MAKER.format(packages=str(self.packages)))
        self.python = self.venv / "bin" / "python"
        self.python.write_text(
            PYTHON.format(packages=self.packages, real=sys.executable, maker=self.maker, pinned=arriving)
        )
        self.python.chmod(0o755)

    def put(self, name: str, version: str, *asks: str) -> None:
        """A package that somebody installs by hand."""
        for old in self.packages.glob(f"{name}-*.dist-info"):
            shutil.rmtree(old)
        subprocess.run([sys.executable, str(self.maker), name, version, *asks], check=True)

    def set_up(self, command: str) -> dict[str, str]:
        """What `make COMMAND` lets pip change nothing of."""
        words = ["make", "-s", "-C", str(ROOT), f"VENV={self.venv}", str(self.venv / f".installed-{command}")]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return pins(Path(f"{self.python}.constraints"))

    def installed(self) -> str:
        return Path(f"{self.python}.installed").read_text()


@pytest.fixture
def clone(tmp_path):
    return lambda arriving=PINS["torch"]: Clone(tmp_path, arriving)


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


@pytest.mark.parametrize("arriving", [PINS["torch"], PINS["torch"] + "+cpu"])
def test_make_demo_then_make_test_keeps_every_pin(clone, arriving):
    fresh = clone(arriving)
    assert fresh.set_up("demo") == PINS
    assert fresh.set_up("dev") == PINS


def test_make_demo_installs_what_the_demo_needs_and_no_more(clone):
    fresh = clone()
    fresh.set_up("demo")
    assert fresh.installed().splitlines() == [".[video]"]


def test_a_torch_of_your_own_stays_and_triton_is_the_one_it_asks_for(clone):
    fresh = clone()
    fresh.put("torch", "2.14.1+cu130", "triton==3.8.0; platform_system == 'Linux'")
    without_triton = {name: version for name, version in PINS.items() if name != "triton"}
    for command in ("demo", "dev"):
        assert fresh.set_up(command) == {**without_triton, "torch": "2.14.1+cu130"}


def test_a_torch_of_your_own_that_asks_for_no_triton_gets_the_pinned_one(clone):
    fresh = clone()
    fresh.put("torch", "2.14.1+cpu")
    assert fresh.set_up("dev") == {**PINS, "torch": "2.14.1+cpu"}


def test_an_older_torch_that_we_installed_moves_on_with_the_pin(clone):
    fresh = clone("2.9.0")
    fresh.set_up("demo")
    (fresh.venv / ".own-torch").write_text("2.9.0\n")  # as noted when the pin was this one
    assert fresh.set_up("dev") == PINS


def test_a_torch_too_old_to_be_used_is_replaced(clone):
    fresh = clone()
    fresh.put("torch", "2.7.1+cu126")
    assert fresh.set_up("demo") == PINS


def test_what_is_pinned_is_what_the_pinned_torch_asks_for():
    """On PyPI torch 2.13.0 for Linux asks for exactly this triton: with another one pip finds no way."""
    assert (PINS["torch"], PINS["triton"]) == ("2.13.0", "3.7.1")


def test_continuous_integration_runs_the_two_commands_of_the_readme_in_their_order():
    lines = [line.split("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    shown = [line for line in lines if line in ("make demo", "make test")]
    ran = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert ran == shown == ["make demo", "make test"]


def test_make_help_names_every_command():
    helped = subprocess.run(["make", "-C", str(ROOT), "-s", "help"], capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert not [name for name in phony if name not in ("help", "gpu-install") and f"make {name}" not in helped]
