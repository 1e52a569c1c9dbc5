"""Continuous integration, hooks, templates and containers: they parse, and call what is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
INSTRUCTIONS = {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}


def parsed(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_workflow_runs_what_is_run_here():
    jobs = parsed(".github/workflows/ci.yml")["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert ".ci/run" in commands["test"] and (ROOT / ".ci" / "run").stat().st_mode & 0o100
    assert "make lint" in commands["lint"] and "make wheels" in commands["wheels"]
    for target in re.findall(r"\bmake (\w+)", " ".join(line for lines in commands.values() for line in lines)):
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target
    assert all(job["timeout-minutes"] <= 90 for job in jobs.values())
    assert jobs["installed"]["needs"] == "wheels"


def test_the_hooks_are_the_linters_of_make_lint():
    [repository] = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # nothing is fetched
    entries = [hook["entry"] for hook in repository["hooks"]]
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    for tool in ("ruff check", "ruff format --check", "mypy", "clang-format --dry-run --Werror"):
        assert tool in lint
        assert any(tool in entry for entry in entries), tool


def test_a_report_asks_for_what_unrain_info_says():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) >= 2
    for form in forms:
        found = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(found)
        [info] = [each for each in found["body"] if "unrain info --json" in each["attributes"]["label"]]
        assert info["validations"]["required"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_container_is_pinned_and_runs_as_nobody_in_particular(path):
    """There is no engine here to build it: it is read, and looked at by hadolint where that is installed."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    images = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert len(images) == 2 and all(re.search(r":.*\d", image) for image in images), images
    last = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert any(line.startswith("USER ") and line.split()[1].isdigit() for line in last)
    assert 'ENTRYPOINT ["/opt/unrain/bin/unrain"]' in last
    for copied in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M):
        assert (ROOT / copied).exists(), copied
    if shutil.which("hadolint"):
        done = subprocess.run(["hadolint", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
