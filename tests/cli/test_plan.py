"""Which pictures are read and where results go: folders, names, and what must be refused before work begins."""

from pathlib import Path

import pytest

from unrain import opening
from unrain.cli.plan import plan
from unrain.engine.errors import UnrainError


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.tif", "deep/er/a.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path


def targets(jobs, root: Path) -> list[str]:
    return [job.target.relative_to(root).as_posix() for job in jobs]


def test_one_file_to_one_file(tree):
    (job,) = plan([tree / "in/b.png"], str(tree / "x/y.jpg"))
    assert job.target == tree / "x/y.jpg" and job.compared is None


def test_one_file_into_a_folder(tree):
    (tree / "dots.v1").mkdir()
    for folder in ("new", "slash.png/", "dots.v1"):
        (job,) = plan([tree / "in/b.png"], f"{tree}/{folder}")
        assert job.target == tree / folder / "b.png"


def test_folder(tree):
    assert targets(plan([tree / "in"], str(tree / "out")), tree) == ["out/a.JPG", "out/b.png"]


def test_recursive_mirrors_the_tree(tree):
    jobs = plan([tree / "in"], str(tree / "out"), recursive=True, suffix="_dry", ext="png")
    assert targets(jobs, tree / "out") == ["a_dry.png", "b_dry.png", "deep/c_dry.png", "deep/er/a_dry.png"]


def test_results_inside_the_input_are_no_inputs(tree):
    (tree / "in/out").mkdir()
    (tree / "in/out/b.png").touch()
    jobs = plan([tree / "in"], str(tree / "in/out"), recursive=True)
    assert "in/out/out/b.png" not in targets(jobs, tree) and len(jobs) == 4


def test_results_beside_the_inputs_are_no_inputs(tree):
    jobs = plan([tree / "in"], str(tree / "in"), suffix="_dry", compare=True)
    for job in jobs:
        for path in job.outputs:
            path.touch()
    assert plan([tree / "in"], str(tree / "in"), suffix="_dry", compare=True) == jobs


def test_compare_names_a_second_picture(tree):
    (job,) = plan([tree / "in/b.png"], str(tree / "y.png"), compare=True)
    assert job.outputs == [tree / "y.png", tree / "y-compare.png"]


def test_the_same_input_twice_is_one_job(tree):
    assert len(plan([tree / "in/b.png", tree / "in/b.png"], str(tree / "out"))) == 1


@pytest.mark.parametrize(
    "inputs, output, options, words",
    [
        (["in/none.png"], "out", {}, "does not exist"),
        (["in"], "in", {}, "overwritten by its own result"),
        (["in/b.png"], "in/b.png", {}, "overwritten by its own result"),
        (["in"], "in/b.png", {}, "is a file"),
        (["in/b.png"], "y.gif", {}, "no picture suffix"),
        (["in"], "out", {"ext": "gif"}, "no picture suffix"),
        (["in/b.png"], "y.png", {"suffix": "_dry"}, "leave --suffix"),
        (["in/a.JPG", "in/deep/er/a.jpg"], "out", {"ext": "png"}, "would both be written to"),
        (["empty"], "out", {}, "--recursive"),
        (["in/notes.txt"], "out", {}, "no picture suffix"),
    ],
)
def test_refusals(tree, inputs, output, options, words):
    (tree / "empty").mkdir()
    with pytest.raises(UnrainError, match=words) as error:
        plan([tree / name for name in inputs], str(tree / output), **options)
    assert "\n" not in str(error.value)
    assert not (tree / "out").exists()


@pytest.mark.parametrize(("text", "size"), [("auto", "auto"), ("none", None), ("256", 256)])
def test_a_tile_is_a_number_auto_or_none(text, size):
    assert opening.tile_size(text) == size


@pytest.mark.parametrize(("text", "count"), [("1000", 1000), ("800M", 800 << 20), ("1.5g", 3 << 29), ("4k", 4096)])
def test_memory_is_given_as_people_write_it(text, count):
    assert opening.byte_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "-1G", "0", "many", "nan", "inf"])
def test_memory_that_is_no_size_is_refused(text):
    with pytest.raises(UnrainError, match="--max-memory takes a size"):
        opening.byte_count(text)


def test_a_tile_that_is_no_number_is_refused():
    with pytest.raises(UnrainError, match="--tile takes"):
        opening.tile_size("-5")
