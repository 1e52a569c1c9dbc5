"""Folders are recognised, held-out scenes stay out, and a batch depends on seed and step alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unrain.engine.errors import UnrainError
from unrain.engine.training.cache import pack
from unrain.engine.training.clutter import KINDS, add_clutter
from unrain.engine.training.data import (
    Batches,
    CleanSource,
    PairSource,
    StaticSource,
    TimeLapseSource,
    cut_out,
    rain_likeness,
)
from unrain.engine.training.rain import DISTRIBUTIONS
from unrain.engine.training.recipes import recipe_for
from unrain.engine.training.setup import open_data, pictures_in, recognise, scene_of, split

SRN, TIMELAPSE = recipe_for("srn"), recipe_for("timelapse")


def test_folders_are_recognised(clean_folder, pairs_folder, scenes_folder, tmp_path):
    assert recognise(clean_folder) == "clean"
    assert recognise(pairs_folder) == "pairs"
    assert recognise(scenes_folder) == "timelapse"
    for name in ("rain-001.png", "norain-001.png"):
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "flat" / name)
    assert recognise(tmp_path / "flat") == "pairs"


def test_each_folder_gives_its_source(clean_folder, pairs_folder, scenes_folder, tmp_path):
    cases = ((clean_folder, SRN, CleanSource), (clean_folder, TIMELAPSE, StaticSource))
    cases += ((pairs_folder, SRN, PairSource), (scenes_folder, TIMELAPSE, TimeLapseSource))
    for folder, recipe, kind in cases:
        source, held_out = open_data(folder, "auto", recipe, tmp_path / "cache", 2)
        assert isinstance(source, kind)
        first, second = source.example(np.random.default_rng(0), 40)
        assert first.shape == second.shape == (3, 40, 40)
        assert held_out.rainy.shape == held_out.clean.shape


@pytest.mark.parametrize("recipe", [SRN, TIMELAPSE, recipe_for("wiper", "video")], ids=("srn", "timelapse", "video"))
def test_the_recipes_rain_falls_in_every_source(recipe, clean_folder, tmp_path):
    """Another rain on the same pictures, drawn from the same seed."""
    falls = []
    for rain in DISTRIBUTIONS:
        source, _ = open_data(clean_folder, "auto", replace(recipe, rain=rain), tmp_path / "cache", 1)
        falls.append([source.example(np.random.default_rng(seed), 32)[0] for seed in range(6)])
    for other in falls[1:]:
        assert any(not torch.equal(*pair) for pair in zip(falls[0], other, strict=True))


def test_wrong_kinds_are_refused(pairs_folder, scenes_folder, tmp_path):
    with pytest.raises(UnrainError, match="holds pairs"):
        open_data(pairs_folder, "auto", TIMELAPSE, tmp_path / "cache", 2)
    with pytest.raises(UnrainError, match="without clean pictures"):
        open_data(scenes_folder, "auto", SRN, tmp_path / "cache", 2)


def test_pairs_stay_together(pairs_folder, tmp_path):
    """With the clean picture copied over the rainy one, every patch pair must be equal: cut and turned alike."""
    for file in (pairs_folder / "target").iterdir():
        (pairs_folder / "input" / file.name).write_bytes(file.read_bytes())
    source, _ = open_data(pairs_folder, "pairs", SRN, tmp_path / "cache", 2)
    for seed in range(10):
        rainy, clean = source.example(np.random.default_rng(seed), 33)
        assert torch.equal(rainy, clean)


def test_time_lapse_views_are_two_moments_of_one_scene(scenes_folder, tmp_path):
    source, _ = open_data(scenes_folder, "timelapse", TIMELAPSE, tmp_path / "cache", 1)
    names = source.pictures.names
    assert all(len({Path(names[n]).parent for n in scene}) == 1 for scene in source.scenes)
    one, other = source.example(np.random.default_rng(0), 40)
    assert not torch.equal(one, other)


def test_generated_rain_is_on_the_rainy_side(clean_folder, tmp_path):
    source = CleanSource(pack(pictures_in(clean_folder), tmp_path / "cache"), dry=0.0)
    pairs = [source.example(np.random.default_rng(n), 48) for n in range(30)]
    assert np.mean([float((rainy - clean).mean()) for rainy, clean in pairs]) > 0.005
    dry = CleanSource(source.pictures, dry=1.0)
    assert all(torch.equal(*dry.example(np.random.default_rng(n), 48)) for n in range(10))


def test_dry_crops_are_the_rain_like_ones(clean_folder, tmp_path):
    """Thin upright bright lines are rain-like; lying ones, broad ones and dark ones are less so or not at all."""
    still = np.full((48, 48, 3), 90, np.uint8)
    upright, lying, broad, dark = still.copy(), still.copy(), still.copy(), still.copy()
    upright[:, 10::12] = lying[10::12] = 200
    broad[:, 10:34] = 200
    dark[:, 10::12] = 10
    assert rain_likeness(upright) > 5
    assert all(rain_likeness(cut) == 0 for cut in (still, lying, broad, dark))
    source = CleanSource(pack(pictures_in(clean_folder), tmp_path / "cache"), dry=1.0, choices=8)
    blind = CleanSource(source.pictures, dry=1.0, choices=1)
    chosen, drawn = (
        np.mean([rain_likeness(s.example(np.random.default_rng(n), 32)[0].permute(1, 2, 0).numpy()) for n in range(40)])
        for s in (source, blind)
    )
    assert chosen > drawn


def test_a_batch_is_a_function_of_seed_and_step(clean_folder, tmp_path):
    source = CleanSource(pack(pictures_in(clean_folder), tmp_path / "cache"))
    batches = Batches(source, 32, 4, seed=3)
    late = batches[7]
    batches[0]
    assert all(torch.equal(a, b) for a, b in zip(late, batches[7], strict=True))
    assert not torch.equal(batches[7][1], Batches(source, 32, 4, seed=4)[7][1])
    # Two processes with half the batch draw the same patches between them.
    halves = [Batches(source, 32, 2, seed=3, rank=rank)[7] for rank in (0, 1)]
    assert torch.equal(torch.cat([half[0] for half in halves]), late[0])


def test_scenes_are_not_split():
    names = ["a_9b01_t00", "a_9b01_t01", "a_9b01", "road_0001", "road_0022", "b_1234567890", "b_1234567890_t11", "c"]
    files = [Path(f"{name}.jpg") for name in names]
    train, held = split(files, 3)
    assert sorted(train + held) == sorted(files) and train and held
    assert not {scene_of(file) for file in train} & {scene_of(file) for file in held}
    assert scene_of(Path("b_1234567890.jpg")) == scene_of(Path("b_1234567890_t11.jpg"))


def test_the_cache_notices_a_changed_file(clean_folder, tmp_path):
    files = pictures_in(clean_folder)
    before = pack(files, tmp_path / "cache")[0].copy()
    assert np.array_equal(before, np.asarray(Image.open(files[0])))
    Image.new("RGB", (50, 50), (1, 2, 3)).save(files[0])
    assert pack(files, tmp_path / "cache")[0].shape == (50, 50, 3)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_small_pictures_are_mirrored_or_refused(tmp_path):
    assert cut_out(np.ones((40, 33, 3), np.uint8), 64, np.random.default_rng(0)).shape == (64, 64, 3)
    (tmp_path / "small").mkdir()
    Image.new("RGB", (20, 40)).save(tmp_path / "small" / "tiny.png")
    with pytest.raises(UnrainError, match=r"tiny\.png is 20 x 40"):
        pack(pictures_in(tmp_path / "small"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize("kind", KINDS)
def test_clutter_draws_something_on_a_copy(kind):
    grey = np.full((64, 80, 3), 120, np.uint8)
    drawn = [add_clutter(grey, np.random.default_rng(seed), kind) for seed in range(6)]
    assert (grey == 120).all()
    assert all(one.shape == grey.shape and one.dtype == np.uint8 for one in drawn)
    assert sum((one != grey).any() for one in drawn) >= 5
    assert np.array_equal(drawn[0], add_clutter(grey, np.random.default_rng(0), kind))
