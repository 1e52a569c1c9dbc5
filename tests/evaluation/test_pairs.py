"""Every data-set layout, and what is wrong with a broken one."""

import numpy as np
import pytest
from PIL import Image

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.pairs import find_pairs


def put(path, seed=0, size=(20, 14), image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(image).save(path)
    return image


def names(pairs):
    return [(pair.rainy.name, pair.clean.name) for pair in pairs]


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [("input", "target"), ("rain", "norain"), ("rainy_image", "ground_truth"), ("Rainy", "GT"), ("data", "gt")],
)
def test_two_folders_inside(tmp_path, rainy, clean):
    for number in (10, 2, 1):
        put(tmp_path / rainy / f"{number}.png", number)
        put(tmp_path / clean / f"{number}.png", number + 100)
    (tmp_path / rainy / "Thumbs.db").write_bytes(b"")
    (tmp_path / clean / ".hidden.png").write_bytes(b"")
    assert names(find_pairs(tmp_path)) == [("1.png", "1.png"), ("2.png", "2.png"), ("10.png", "10.png")]


def test_read_gives_both_pictures(tmp_path):
    rainy = put(tmp_path / "input" / "a.png", 1)
    clean = put(tmp_path / "target" / "a.png", 2)
    read = find_pairs(tmp_path)[0].read()
    assert np.array_equal(read[0], rainy) and np.array_equal(read[1], clean)


def test_two_folders_given(tmp_path):
    put(tmp_path / "foggy" / "a.png")
    put(tmp_path / "fine" / "a.jpg")
    assert names(find_pairs(tmp_path / "foggy", tmp_path / "fine")) == [("a.png", "a.jpg")]


def test_rain100_in_one_folder(tmp_path):
    for number in ("001", "002", "010"):
        put(tmp_path / f"rain-{number}.png")
        put(tmp_path / f"norain-{number}.png")
    expected = [(f"rain-{n}.png", f"norain-{n}.png") for n in ("001", "002", "010")]
    assert names(find_pairs(tmp_path)) == expected


def test_rain100_in_two_folders_with_scale(tmp_path):
    put(tmp_path / "rain" / "norain-12x2.png")
    put(tmp_path / "norain" / "norain-12.png")
    assert names(find_pairs(tmp_path)) == [("norain-12x2.png", "norain-12.png")]


def test_rain12(tmp_path):
    for number in ("001", "012"):
        put(tmp_path / f"{number}_in.png")
        put(tmp_path / f"{number}_GT.png")
    assert names(find_pairs(tmp_path)) == [(f"{n}_in.png", f"{n}_GT.png") for n in ("001", "012")]


def test_rain1400_has_fourteen_rains_on_one_picture(tmp_path):
    for scene in (901, 1000):
        put(tmp_path / "ground_truth" / f"{scene}.jpg")
        for rain in range(1, 15):
            put(tmp_path / "rainy_image" / f"{scene}_{rain}.jpg")
    pairs = find_pairs(tmp_path)
    assert len(pairs) == 28
    assert names(pairs)[13] == ("901_14.jpg", "901.jpg") and names(pairs)[14] == ("1000_1.jpg", "1000.jpg")


def test_spa_test_set_names(tmp_path):
    put(tmp_path / "rain" / "000.png")
    put(tmp_path / "norain" / "000gt.png")
    assert names(find_pairs(tmp_path)) == [("000.png", "000gt.png")]


def test_spa_text_list(tmp_path):
    put(tmp_path / "real_world" / "000_1.png")
    put(tmp_path / "real_world_gt" / "000.png")
    listing = tmp_path / "real_world.txt"
    listing.write_text("/real_world/000_1.png /real_world_gt/000.png\n\n")
    assert names(find_pairs(listing)) == [("000_1.png", "000.png")]


@pytest.mark.parametrize("half", ["left", "right"])
def test_rain800_holds_both_in_one_picture(tmp_path, half):
    scene = np.repeat(np.repeat(np.random.default_rng(0).integers(40, 200, (4, 5, 3), dtype=np.uint8), 8, 0), 8, 1)
    rain = np.clip(scene.astype(int) + 20, 0, 255).astype(np.uint8)
    both = [rain, scene] if half == "left" else [scene, rain]
    put(tmp_path / "7.png", image=np.concatenate(both, axis=1))
    (pair,) = find_pairs(tmp_path, rainy_half=half)
    read = pair.read()
    assert np.array_equal(read[0], rain) and np.array_equal(read[1], scene)


def test_unrelated_halves_are_not_a_pair(tmp_path):
    put(tmp_path / "7.png", size=(64, 32))
    with pytest.raises(UnrainError, match=r"7\.png has no clean picture; expected"):
        find_pairs(tmp_path)


def broken_rainy(root):
    put(root / "input" / "1.png")
    put(root / "input" / "2.png")
    put(root / "target" / "1.png")
    return r"input/2\.png has no clean picture"


def broken_clean(root):
    put(root / "input" / "1.png")
    put(root / "target" / "1.png")
    put(root / "target" / "3.png")
    return r"target/3\.png has no rainy picture"


def broken_size(root):
    put(root / "input" / "1.png", size=(20, 14))
    put(root / "target" / "1.png", size=(21, 14))
    return r"input/1\.png is 20x14, but .*target/1\.png is 21x14"


def broken_empty(root):
    (root / "input").mkdir()
    put(root / "target" / "1.png")
    return "input holds no pictures"


def broken_bare(root):
    return "holds no pictures"


def broken_half(root):
    put(root / "input" / "1.png")
    return "has input/ but no clean folder"


def broken_file(root):
    put(root / "target" / "1.png")
    (root / "input").mkdir()
    (root / "input" / "1.png").write_text("not a picture")
    return r"input/1\.png cannot be read as a picture"


@pytest.mark.parametrize(
    "broken", [broken_rainy, broken_clean, broken_size, broken_empty, broken_bare, broken_half, broken_file]
)
def test_a_broken_data_set_is_one_line_with_the_file(tmp_path, broken):
    message = broken(tmp_path)
    with pytest.raises(UnrainError, match=message) as caught:
        find_pairs(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_data_set(tmp_path):
    with pytest.raises(UnrainError, match="no data set at"):
        find_pairs(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png", "line 1: expected a rainy and a clean path"),
        ("a.png b.png", r"no file .*a\.png"),
        ("", "lists no pairs"),
    ],
)
def test_a_broken_list(tmp_path, text, message):
    listing = tmp_path / "pairs.txt"
    listing.write_text(text)
    with pytest.raises(UnrainError, match=message):
        find_pairs(listing)


def test_a_list_must_be_text(tmp_path):
    put(tmp_path / "a.png")
    with pytest.raises(UnrainError, match="neither a folder nor a text list"):
        find_pairs(tmp_path / "a.png")


def test_sizes_that_differ_by_rotation_alone_are_found_on_reading(tmp_path):
    put(tmp_path / "input" / "1.png", size=(20, 14))
    put(tmp_path / "target" / "1.png", size=(14, 20))
    (pair,) = find_pairs(tmp_path)
    with pytest.raises(UnrainError, match=r"20x14, but .* is 14x20"):
        pair.read()


def test_rain100l_of_the_reference_data(shared):
    pairs = find_pairs(shared("data/eval/Rain100L"))
    assert len(pairs) == 100
    assert [pair.name for pair in pairs] == [str(number) for number in range(1, 101)]


def test_a_video_of_the_reference_data_is_in_frame_order(shared):
    pairs = find_pairs(shared("data/video/NTU_a1_synthetic_rain"))
    assert len(pairs) > 10 and [pair.rainy.name for pair in pairs] == sorted(pair.rainy.name for pair in pairs)
