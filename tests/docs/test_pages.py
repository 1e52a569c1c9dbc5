"""The pages build without a warning, need nothing from elsewhere, link to what is there, and name files that exist."""

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from unrain.demo import show
from unrain.engine.models import CATALOG
from unrain.kernels.registry import OPS

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
FLOORS = ("unrain", "export", "engine", "kernels", "csrc", "benchmarks", "tests", "docs", "examples")
PAGES = [ROOT / name for name in KEPT] + [page for floor in FLOORS for page in sorted((ROOT / floor).rglob("*.md"))]
FOLDERS = "|".join(FLOORS)
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'unrain[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "search" / "search_index.json").is_file()
    for page in (tmp_path / "site").rglob("*.html"):
        # A link may lead anywhere; what a browser loads by itself may not.
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]*\shref="([^"]+)"', page.read_text())
        assert not [address for address in loaded if "//" in address], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text()), style


def test_the_clip_of_the_readme_moves_and_is_small():
    place = ROOT / "docs" / "figures" / "clip.webp"
    assert f"](docs/figures/{place.name})" in (ROOT / "README.md").read_text() and place.stat().st_size < 700_000
    with Image.open(place) as clip:
        assert (clip.n_frames, clip.size) == (show.FRAMES, (2 * show.WIDTH + 4, show.HEIGHT))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
    """`engine/models/catalog.py` in a text is that file, unless the page is about making it."""
    text = page.read_text(encoding="utf-8")
    made = set(re.findall(r"<!-- new: (\S+) -->", text))
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./*-]+)`", text):
        assert list(ROOT.glob(name.rstrip("/"))) or name in made or "soft_threshold" in name, f"{name} is not there"


def test_every_operation_and_every_network_has_a_page():
    site = (ROOT / "mkdocs.yml").read_text()
    table = (ROOT / "docs" / "ops" / "index.md").read_text()
    for op in OPS:
        assert (ROOT / "docs" / "ops" / f"{op}.md").is_file()
        assert f"ops/{op}.md" in site and f"[{op}]({op}.md)" in table
    networks = (ROOT / "docs" / "models" / "index.md").read_text()
    for name, entry in CATALOG.items():
        page = ROOT / "docs" / "models" / f"{entry.file.replace('_', '-')}.md"
        assert page.is_file() and f"`{name}`" in page.read_text() and f"`{name}`" in networks
        assert f"models/{page.name}" in site
