"""First contact: help in any terminal, no colour where none is wanted, and one line for every misuse."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import typer

from unrain.cli import main as program
from unrain.engine.images import write_image

COMMANDS = typer.main.get_command(program.app).list_commands(None)
ANSI = re.compile(r"\x1b\[")


def options(name: str):
    command = typer.main.get_command(program.app).get_command(None, name)
    return [each for each in command.params if each.name != "help"]


def test_every_command_is_listed():
    assert set(COMMANDS) >= {"run", "demo", "eval", "convert", "models", "info", "train", "export"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    for option in options(name):
        assert option.help, f"{name} {option.name}"
        assert option.help.rstrip().endswith((".", "...")), f"{name} {option.name}: {option.help}"


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal_and_shows_defaults(unrain_run, monkeypatch, name, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = unrain_run(name, "--help")
    assert (code, err) == (0, "") and not ANSI.search(out)
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width
    if width == 200:
        flat = " ".join(out.replace("│", " ").split())
        for option in options(name):
            if option.param_type_name == "option" and option.default not in (None, False, "", []):
                default = option.opts[0].lstrip("-") if option.default is True else option.default
                assert f"default: {default}" in flat, option.name


def test_no_colour_in_a_pipe_or_where_none_is_wanted():
    """In a pipe, and in what takes itself for a terminal while NO_COLOR is set."""
    for words in (["--help"], ["models"]):
        for more in ({}, {"NO_COLOR": "1"}):
            done = subprocess.run(
                [sys.executable, "-m", "unrain.cli.main", *words],
                capture_output=True,
                text=True,
                env={**os.environ, **more},
            )
            assert done.returncode == 0 and not ANSI.search(done.stdout + done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("wanted", [True, False])
def test_colours_in_a_terminal_unless_refused(wanted):
    import pty

    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")}
    environment |= {"TERM": "xterm-256color"} | ({} if wanted else {"NO_COLOR": "1"})
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "unrain.cli.main", "run", "--help"]
    process = subprocess.Popen(words, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    try:
        while block := os.read(leader, 65536):
            seen += block
    except OSError:  # Linux says so when the other end has closed
        pass
    os.close(leader)
    assert process.wait() == 0
    coloured = re.findall(rb"\x1b\[(?:\d+;)*3[1-7][;m]", seen)
    assert bool(coloured) == wanted


# What must be refused: the words, the exit code, and a part of the one line.
MISUSES = [
    ("run", 1, "no input"),
    ("run '' -o out.png", 1, "is empty"),
    ("run a.png -o ''", 1, "is empty"),
    ("run a.png -o", 2, "requires an argument"),
    ("run a.png -o out --suffix ../x", 1, "--suffix"),
    ("run a.png -o out --ext gif", 1, "no picture suffix"),
    ("run a.png -o out.mp4", 1, "no picture suffix"),
    ("run a.png -o text.txt/out.png", 1, "text.txt cannot be written to"),
    ("run a.png -o a.png", 1, "overwritten by its own result"),
    ("run empty -o out", 1, "holds no pictures"),
    ("run text.mp4 -o out.mp4", 1, "cannot be opened as video"),
    ("run a.png -o out.png -n empty", 1, "directory"),
    ("run a.png -o out.png -n text.safetensors", 1, "text.safetensors"),
    ("run a.png -o out.png --device meta", 1, "device meta cannot be used"),
    ("run a.png -o out.png --threads 100000", 2, "1024"),
    ("run a.png -o out.png --threads -1", 2, "--threads"),
    ("run a.png -o out.png --backend warp", 1, "backend must be"),
    ("run a.png -o out.png --precision fp8", 1, "precision must be"),
    ("run - -o out.mp4", 1, "need their size"),
    ("run gopher://x -o out.mp4", 1, "gopher"),
    ("run a.png -o out.png --jsn", 2, "--json"),
    ("models x", 2, "unexpected"),
    ("info x", 2, "unexpected"),
    ("convert", 2, "SRC"),
    ("convert no.pth -o x.safetensors", 1, "no.pth is not there"),
    ("convert a.png -o x.safetensors", 1, "refused"),
    ("convert empty -o x.safetensors", 1, "directory"),
    ("eval srn nowhere", 1, "nowhere"),
    ("eval srn a.png", 1, "neither a folder"),
    ("eval none pairs --csv empty", 1, "is a folder"),
    ("eval none pairs --html text.txt/a.html", 1, "cannot be written to"),
    ("eval none pairs --metrics mse", 1, "unknown metric"),
    ("eval none pairs --limit 0", 2, "--limit"),
    ("train srn --data nowhere --out runs", 1, "not a folder"),
    ("train srn --data empty --out runs", 1, "holds no pictures"),
    ("train srn --data pairs --out text.txt", 1, "text.txt cannot be written to"),
    ("train mspfn --data pairs --out runs --stages 3", 1, "no stages"),
    ("export srn", 1, "say where to write"),
    ("export srn --to floppy -o x.onnx", 1, "--to must be one of"),
    ("export srn -o text.txt/x.onnx", 1, "cannot be written to"),
    ("export srn -o x.onnx --size 10", 1, "HEIGHTxWIDTH"),
    ("export --verify no.onnx", 1, "no.onnx does not exist"),
    ("demo -n nothing", 1, "nothing is neither"),
    ("demo -n text.safetensors", 1, "text.safetensors"),
    ("demo --device toaster", 1, "toaster"),
    ("demo --port 70000", 2, "--port"),
    ("bench srn --size 10", 1, "HEIGHTxWIDTH"),
    ("wipe a.png", 2, "No such command"),
    ("--colour", 2, "--colour"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a little of everything, and we in it."""
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in ("a.png", "pairs/input/1.png", "pairs/target/1.png"):
        write_image(name, picture)
    for name in ("text.txt", "text.mp4", "text.safetensors"):
        (tmp_path / name).write_text("text")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(("words", "code", "said"), MISUSES, ids=[words for words, _, _ in MISUSES])
def test_a_misuse_is_one_line(unrain_run, here, words, code, said):
    if words.split()[0] == "bench" and "bench" not in COMMANDS:
        pytest.skip("there is no bench command")
    before = sorted(here.rglob("*"))
    found, out, err = unrain_run(*("" if word == "''" else word for word in words.split()))
    assert found == code and out == ""
    assert err.startswith("unrain: ") and err.count("\n") == 1 and said in err
    assert "Traceback" not in err and "--debug" not in err  # --debug is named where it is a bug of ours
    made = [path for path in here.rglob("*") if path not in before and path.is_file()]
    assert not made


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(unrain_run, here):
    (here / "a.png").chmod(0)
    (here / "empty").chmod(0o500)
    write_image("b.png", np.zeros((16, 16, 3), np.uint8))
    for words, said in (("run a.png -o out.png", "permission denied"), ("run b.png -o empty/out.png", "cannot be")):
        code, _, err = unrain_run(*words.split())
        assert code == 1 and err.count("\n") == 1 and said in err


def test_json_is_json_and_nothing_else(unrain_run, here):
    for words in ("models --json", "info --json", "eval none pairs --json --metrics psnr_rgb"):
        code, out, _ = unrain_run(*words.split())
        assert code == 0 and json.loads(out)


def test_types_are_shipped():
    from importlib.resources import files

    assert files("unrain").joinpath("py.typed").is_file()
