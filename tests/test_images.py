"""Picture files: what must work, what must be refused in one line, and that nothing half-written stays behind."""

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from unrain.engine.errors import UnrainError
from unrain.engine.images import make_folder, read_image, read_picture, write_image, write_picture

# Pillow warns about the odd files made here; the answer is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
H, W = 24, 36


@pytest.fixture
def rgb():
    rows, columns = np.mgrid[0:H, 0:W]
    return np.stack([rows * 10, columns * 7, (rows + columns) * 4], axis=2).astype(np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_raw_png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> None:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".tif", ".bmp", ".ppm", ".jpg", ".jpeg"])
def test_every_format_round_trips(tmp_path, rgb, suffix):
    path = tmp_path / f"picture{suffix}"
    write_image(path, rgb, quality=100)
    back = read_image(path)
    assert back.dtype == np.uint8 and back.shape == (H, W, 3) and back.flags.c_contiguous
    lossy = suffix in (".webp", ".jpg", ".jpeg")
    assert np.abs(back.astype(int) - rgb).mean() < (4 if lossy else 0.001)
    assert os.listdir(tmp_path) == [path.name]


def test_quality_changes_the_size_of_a_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "a.jpg", noise, quality=95)
    write_image(tmp_path / "b.jpg", noise, quality=40)
    assert (tmp_path / "b.jpg").stat().st_size < 0.6 * (tmp_path / "a.jpg").stat().st_size


def test_grey_stays_grey(tmp_path, rgb):
    Image.fromarray(rgb[:, :, 0]).save(tmp_path / "grey.png")
    picture = read_picture(tmp_path / "grey.png")
    assert np.array_equal(picture.rgb, np.repeat(rgb[:, :, :1], 3, axis=2))
    write_picture(tmp_path / "out.png", picture)
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "L"
        assert np.array_equal(np.array(out), rgb[:, :, 0])


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
    Image.fromarray(values).save(tmp_path / "grey16.png")
    expected = np.round(values / 65535 * 255).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "grey16.png")[:, :, 1], expected)


def test_sixteen_bit_colour_becomes_eight_bit(tmp_path, rgb):
    wide = (rgb.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + wide[row].tobytes() for row in range(H))
    write_raw_png(tmp_path / "rgb16.png", W, H, 16, 2, rows)
    assert np.array_equal(read_image(tmp_path / "rgb16.png"), rgb)


def test_palette_is_read_as_colour(tmp_path, rgb):
    paletted = Image.fromarray(rgb).quantize(64)
    paletted.save(tmp_path / "palette.png")
    picture = read_picture(tmp_path / "palette.png")
    assert np.array_equal(picture.rgb, np.array(paletted.convert("RGB"))) and picture.alpha is None


def test_transparent_palette_entry_is_alpha(tmp_path, rgb):
    paletted = Image.fromarray(rgb).quantize(8)
    paletted.save(tmp_path / "palette.png", transparency=3)
    alpha = read_picture(tmp_path / "palette.png").alpha
    assert np.array_equal(alpha == 0, np.array(paletted) == 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_survives(tmp_path, rgb, mode):
    alpha = np.tile(np.arange(W, dtype=np.uint8) * 7, (H, 1))
    image = Image.fromarray(rgb).convert(mode[:-1])
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "in.png")
    picture = read_picture(tmp_path / "in.png")
    assert np.array_equal(picture.alpha, alpha)
    for suffix in ("png", "tiff"):
        write_picture(tmp_path / f"out.{suffix}", picture)
        with Image.open(tmp_path / f"out.{suffix}") as out:
            assert out.mode == mode
            assert np.array_equal(np.array(out), np.array(image))


def test_alpha_is_laid_on_white_where_the_format_has_none(tmp_path, rgb):
    alpha = np.zeros((H, W), np.uint8)
    alpha[:, : W // 2] = 255
    write_image(tmp_path / "out.bmp", rgb, alpha)
    out = read_image(tmp_path / "out.bmp")
    assert np.array_equal(out[:, : W // 2], rgb[:, : W // 2]) and (out[:, W // 2 :] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, rgb, orientation):
    stored = Image.fromarray(rgb)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(tmp_path / "turned.png"), expected)


def test_a_phones_two_picture_file_gives_the_first(tmp_path, rgb):
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_image(tmp_path / "phone.jpg").astype(int) - rgb).mean() < 4


def test_broken_exif_does_not_spoil_a_good_picture(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "odd.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert np.array_equal(read_image(tmp_path / "odd.png"), rgb)


def test_cmyk_jpeg_is_read_as_rgb(tmp_path):
    flat = np.full((H, W, 3), (200, 60, 20), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "ink.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "ink.jpg").astype(int) - flat).max() <= 4


def test_colour_profile_is_carried(tmp_path, rgb):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "in.png", icc_profile=profile)
    write_picture(tmp_path / "out.jpg", read_picture(tmp_path / "in.png"))
    with Image.open(tmp_path / "out.jpg") as out:
        assert out.info["icc_profile"] == profile


def test_missing_and_folder(tmp_path):
    with pytest.raises(UnrainError) as error:
        read_image(tmp_path / "no.png")
    one_line(error, "no.png", "does not exist")
    with pytest.raises(UnrainError) as error:
        read_image(tmp_path)
    one_line(error, "is a folder")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / f"whole{suffix}", noise)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UnrainError) as error:
        read_image(cut)
    one_line(error, cut.name)


def test_text_named_png_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not a picture\n" * 20)
    with pytest.raises(UnrainError) as error:
        read_image(tmp_path / "text.png")
    one_line(error, "text.png", "none of PNG")


def test_formats_that_call_other_programs_are_refused(tmp_path):
    (tmp_path / "script.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(UnrainError, match="none of PNG"):
        read_image(tmp_path / "script.png")


def test_flipped_bytes_never_escape_as_another_error(tmp_path, rgb):
    random = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".webp", ".tiff", ".bmp"):
        write_image(tmp_path / f"good{suffix}", rgb)
        data = np.frombuffer((tmp_path / f"good{suffix}").read_bytes(), np.uint8)
        for _ in range(40):
            bad = data.copy()
            bad[random.integers(0, len(bad), 8)] = random.integers(0, 256, 8, dtype=np.uint8)
            path = tmp_path / f"bad{suffix}"
            path.write_bytes(bad.tobytes())
            try:
                assert read_image(path).dtype == np.uint8
            except UnrainError as error:
                assert "\n" not in str(error)


def test_one_pixel_is_too_small(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(UnrainError) as error:
        read_image(tmp_path / "dot.png")
    one_line(error, "1 x 1", "8 x 8")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    # 200 megapixels of black: 600 MB as RGB from 25 kB of file (1 bit per pixel, deflated).
    write_raw_png(tmp_path / "bomb.png", 20_000, 10_000, 1, 0, bytes(10_000 * (1 + 2_500)))
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(UnrainError) as error:
        read_image(tmp_path / "bomb.png")
    one_line(error, "200,000,000 pixels", "--max-pixels")


def test_the_limit_is_the_callers_and_pillows_own_is_left_alone(tmp_path, rgb, monkeypatch):
    write_image(tmp_path / "a.png", rgb)
    with pytest.raises(UnrainError, match="limit is 863"):
        read_image(tmp_path / "a.png", max_pixels=H * W - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    threads = [threading.Thread(target=read_image, args=(tmp_path / "a.png",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100
    assert read_image(tmp_path / "a.png", max_pixels=H * W).shape == (H, W, 3)


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((H, W), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(UnrainError, match="32-bit"):
        read_image(tmp_path / "f.tiff")


def test_output_below_a_file_or_under_an_unknown_suffix(tmp_path, rgb):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnrainError) as error:
        write_image(tmp_path / "file" / "out.png", rgb)
    one_line(error, "cannot be written")
    with pytest.raises(UnrainError) as error:
        write_image(tmp_path / "out.xyz", rgb)
    one_line(error, "out.xyz", ".png")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path, rgb):
    tmp_path.chmod(0o500)
    with pytest.raises(UnrainError, match="permission denied"):
        write_image(tmp_path / "out.png", rgb)


def test_make_folder_finds_out_early():
    with pytest.raises(UnrainError, match="cannot be written to"):
        make_folder(Path("/proc/unrain"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, rgb, monkeypatch):
    write_image(tmp_path / "out.png", rgb)
    before = (tmp_path / "out.png").read_bytes()

    def half(self, file, **options):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(UnrainError, match="no space left"):
        write_image(tmp_path / "out.png", 255 - rgb)
    assert (tmp_path / "out.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["out.png"]


def test_wrong_arrays_are_named(tmp_path):
    with pytest.raises(TypeError, match="uint8"):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32))
    with pytest.raises(TypeError, match=r"\[4, 4, 2\]"):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 2), np.uint8))


def test_file_mode_follows_the_umask(tmp_path, rgb):
    write_image(tmp_path / "a.png", rgb)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_pgm_of_16_bits_is_read_as_a_png_of_16_bits_is(tmp_path):
    values = np.linspace(0, 65535, 8 * 16).reshape(8, 16).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    (tmp_path / "grey.pgm").write_bytes(b"P5 16 8 65535\n" + values.astype(">u2").tobytes())
    (tmp_path / "ten.pgm").write_bytes(b"P5 16 8 1023\n" + (values >> 6).astype(">u2").tobytes())
    expected, found = read_picture(tmp_path / "grey.png"), read_picture(tmp_path / "grey.pgm")
    assert np.array_equal(found.rgb, expected.rgb) and found.grey
    assert np.abs(read_picture(tmp_path / "ten.pgm").rgb.astype(int) - expected.rgb).max() <= 1
