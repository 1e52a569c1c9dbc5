"""CITATION.cff by the fields of its format, and that version, licence and changelog agree with the package."""

import re
from pathlib import Path

import pytest

import unrain

ROOT = Path(__file__).resolve().parents[2]
# Citation File Format 1.2.0: what a file must have, and what this one may have.
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = REQUIRED | {"type", "version", "license", "abstract", "keywords", "references"}
REFERENCE = {"type", "title", "year", "authors"}
PERSON = {"family-names", "given-names"}


def test_the_citation_file_keeps_to_its_format():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert REQUIRED <= set(found) <= ALLOWED
    assert (found["cff-version"], found["type"], found["license"]) == ("1.2.0", "software", "Apache-2.0")
    assert str(found["version"]) == unrain.__version__
    assert found["authors"] == [{"name": "The unrain authors"}]  # an entity: a name and nothing else
    for reference in found["references"]:
        assert set(reference) == REFERENCE and isinstance(reference["year"], int)
        assert reference["type"] in ("article", "conference-paper")
        assert all(set(person) <= PERSON and person for person in reference["authors"])


def test_version_and_licence_are_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', project, re.M)[1] == unrain.__version__
    assert re.search(r'^license = "(.+)"$', project, re.M)[1] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+?),? ", changes, re.M)[1] == unrain.__version__
