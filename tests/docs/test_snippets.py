"""What README and docs/ show is run: Python in the order of the page, commands as they are written, on small inputs."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from snippets import Snippet, commands, snippets

from unrain.cli.main import main
from unrain.engine.images import write_image

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {"python", "sh"}
SHELL = set("|&;<>$`")
# Commands that set the project up, or that are the very tests this belongs to: make knows them, and that is checked.
MAKE = "make"


def has_snippets(page: Path) -> bool:
    return any(snippet.language in RUN and snippet.not_run is None for snippet in snippets(page))


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """One thread: the inputs are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """The files that the pages speak of, small, in the folder where the snippets run."""
    random = np.random.default_rng(0)

    def picture(name: str, height: int = 24, width: int = 40) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, random.integers(0, 256, (height, width, 3), dtype=np.uint8))

    picture("rainy.jpg")
    picture("photos/one.jpg")
    picture("photos/more/two.png")
    for number in (1, 2):
        picture(f"Rain100L/input/{number}.png")
        picture(f"Rain100L/target/{number}.png")
    for number in range(3):
        picture(f"clean/{number}.png", 96, 96)
    _write_clip(tmp_path / "clip.mp4", random)
    torch.save(_published_srn(), tmp_path / "published.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_clip(path: Path, random: np.random.Generator) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            frame = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _published_srn() -> dict[str, torch.Tensor]:
    """A checkpoint with the keys and shapes of the authors' files, and random weights."""
    shapes = {"conv0.0": (32, 6), "conv.0": (3, 32)}
    shapes |= {f"conv_{gate}.0": (32, 64) for gate in "ifgo"}
    shapes |= {f"res_conv{block}.{layer}": (32, 32) for block in range(1, 6) for layer in (0, 2)}
    weights = {f"{name}.weight": torch.randn(*shape, 3, 3) * 0.02 for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}


@pytest.mark.parametrize("page", [page for page in PAGES if has_snippets(page)], ids=lambda page: page.name)
def test_what_a_page_shows_runs(page, inputs, capsys):
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets(page):
        if snippet.not_run is not None or snippet.language not in RUN:
            continue
        exec(snippet.before, names)
        if snippet.language == "python":
            exec(compile("\n" * (snippet.line - 1) + snippet.code, str(page), "exec"), names)
        else:
            for command in commands(snippet.code):
                _run(command, page, snippet, capsys)


def _run(command: str, page: Path, snippet: Snippet, capsys: pytest.CaptureFixture) -> None:
    words = shlex.split(command)
    where = f"{page.name}:{snippet.line}: {command}"
    if words[0] == "unrain" and not SHELL & set(command):
        code = main(words[1:])
        assert code == 0, f"{where}\n{capsys.readouterr().err}"
        return
    if MAKE in words:  # `make test` inside `make test` would never end: that make knows the target has to do
        command, folder = command.replace(MAKE, f"{MAKE} -n", 1), ROOT
    else:
        command, folder = command.replace("python ", f"{shlex.quote(sys.executable)} ", 1), Path.cwd()
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_why(page):
    """Every block names its language, so that none escapes by having none."""
    for snippet in snippets(page):
        assert snippet.language, f"{page.name}:{snippet.line}: a code block without a language; text is one"
        assert snippet.not_run is None or len(snippet.not_run) > 10
