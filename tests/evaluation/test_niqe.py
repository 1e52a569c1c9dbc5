"""NIQE: the public implementation's values, MATLAB's way to half the size, and photos that have no clean pictures."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation import niqe as module
from unrain.engine.evaluation.evaluate import evaluate, evaluate_video
from unrain.engine.evaluation.niqe import niqe
from unrain.engine.evaluation.page import page
from unrain.engine.evaluation.pairs import find_photos, holds_photos
from unrain.engine.images import read_image, write_image
from unrain.page.wiping import BUNDLED

# shared/data/niqe/README.md: what the project BasicSR gives for these pictures.
PUBLIC = {
    "eval/Rain100L/input/1.png": 4.1635,
    "eval/Rain100L/input/2.png": 4.8839,
    "eval/Rain100L/target/1.png": 2.6769,
    "eval/Rain100L/target/2.png": 3.4178,
    "real_rain_photos/1.jpg": 2.2798,
    "real_rain_photos/101.jpg": 3.4722,
}


def scene(height, width, seed=0):
    """Soft shapes with grain, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.zoom(rng.random((9, 11, 3)), (height / 9, width / 11, 1), order=1, grid_mode=True, mode="nearest")
    return np.clip(coarse * 200 + 20 + rng.normal(0, 4, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_implementations_value(shared, name):
    assert niqe(read_image(shared(f"data/{name}"))) == pytest.approx(PUBLIC[name], abs=0.01)


def test_the_pristine_model_is_the_published_one(shared):
    published = np.load(shared("data/niqe/niqe_pris_params.npz"))
    mean, covariance = module._pristine()
    assert np.array_equal(mean, published["mu_pris_param"][0])
    assert np.array_equal(covariance, published["cov_pris_param"])
    window = np.outer(module._WINDOW, module._WINDOW)
    np.testing.assert_allclose(window, published["gaussian_window"], atol=1e-15)


def test_features_by_their_definition():
    """One block's values and products in plain numpy, its shapes found by a search of their own."""
    from scipy.special import gamma

    block = np.random.default_rng(3).laplace(size=(96, 96)) * np.where(
        np.random.default_rng(4).random((96, 96)) < 0.5, 1, 2
    )

    def fit(values):
        left, right = np.sqrt(np.mean(values[values < 0] ** 2)), np.sqrt(np.mean(values[values > 0] ** 2))
        ratio = left / right
        moments = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
        low, high = 0.2, 10.0
        while high - low > 1e-7:  # it grows with the shape
            middle = (low + high) / 2
            value = gamma(2 / middle) ** 2 / (gamma(1 / middle) * gamma(3 / middle))
            low, high = (middle, high) if value < moments else (low, middle)
        scale = np.sqrt(gamma(1 / low) / gamma(3 / low))
        return low, left * scale, right * scale

    shape, left, right = fit(block)
    expected = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(block * np.roll(block, shift, (0, 1)))
        expected += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    found = module._features(torch.from_numpy(block)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=4e-3, atol=1e-3)  # shapes come in steps of 0.001


def test_half_the_size_as_matlab_makes_it():
    """Keys' cubic of twice the width, on the picture continued by its mirror image, pixel by pixel."""

    def cubic_weight(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    plane = np.random.default_rng(0).random((12, 16))
    padded = np.pad(plane, 4, mode="symmetric")
    expected = np.zeros((6, 8))
    for row in range(6):
        for column in range(8):
            for down in range(-4, 6):
                for across in range(-4, 6):
                    weight = cubic_weight((down - 0.5) / 2) * cubic_weight((across - 0.5) / 2) / 4
                    expected[row, column] += weight * padded[4 + 2 * row + down, 4 + 2 * column + across]
    np.testing.assert_allclose(module._halved(torch.from_numpy(plane)).numpy(), expected, atol=1e-12)


def test_noise_is_worse_than_a_photo_and_a_batch_is_the_mean():
    photo = read_image(BUNDLED)[:192, :288]
    noisy = np.clip(photo + np.random.default_rng(1).normal(0, 40, photo.shape), 0, 255).astype(np.uint8)
    values = [niqe(each) for each in (photo, noisy)]
    assert values[1] > values[0] > 0
    batch = torch.from_numpy(np.stack([photo, noisy])).permute(0, 3, 1, 2)
    assert niqe(batch) == pytest.approx(sum(values) / 2, rel=1e-9)
    assert niqe(batch.double() / 255) == pytest.approx(sum(values) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (scene(96, 191), "two blocks of 96x96 pixels, not 191x96"),
        (np.full((200, 300, 3), 90, np.uint8), "some texture"),
    ],
)
def test_what_has_no_statistics_is_refused(picture, said):
    with pytest.raises(UnrainError, match=said):
        niqe(picture)


@pytest.fixture
def photos(tmp_path):
    for number in (1, 2, 10):
        write_image(tmp_path / f"{number}.png", scene(100, 200, number))
    return tmp_path


def test_photos_without_clean_pictures(photos):
    found = find_photos(photos)
    assert [pair.name for pair in found] == ["1.png", "2.png", "10.png"] and holds_photos(photos)
    report = evaluate(None, found, ("niqe",))
    assert report.rainy == report.output and report.rainy["niqe"] == pytest.approx(
        sum(niqe(read_image(pair.rainy)) for pair in found) / 3
    )
    values = [example.row.output["niqe"] for example in report.worst]
    assert values == sorted(values, reverse=True)  # less is better, so the worst are the largest
    text = page(report)
    assert 'data-kind="output"' in text and 'data-kind="clean"' not in text and "| clean" not in text
    with pytest.raises(UnrainError, match="psnr_y need clean pictures; without them there is niqe"):
        evaluate(None, found, ("psnr_y", "niqe"))
    with pytest.raises(UnrainError, match="leave --video out"):
        evaluate_video(None, found, ("niqe",))


def test_sets_with_clean_pictures_are_no_photos(tmp_path):
    write_image(tmp_path / "a" / "input" / "1.png", scene(16, 16))
    write_image(tmp_path / "b" / "rain-1.png", scene(16, 16))
    write_image(tmp_path / "b" / "norain-1.png", scene(16, 16))
    half = scene(16, 16)
    write_image(tmp_path / "c" / "1.png", np.concatenate([half, half], 1))
    (tmp_path / "list.txt").write_text("a b")
    assert not any(holds_photos(tmp_path / name) for name in ("a", "b", "c", "list.txt", "nowhere", "."))


def test_eval_takes_a_folder_of_photos(photos, capsys):
    from unrain.cli.main import main

    assert main(["eval", "input", str(photos)]) == 0
    told = capsys.readouterr().out
    assert "niqe (less is better)" in told and "psnr" not in told
    assert main(["eval", "input", str(photos), "--json", "--html", str(photos / "out" / "a.html")]) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["output"]["niqe"] > 0
    assert main(["eval", "input", str(photos), "--metrics", "ssim_y"]) == 1
    assert "need clean pictures" in capsys.readouterr().err
