"""Picture files in and out: 8-bit RGB arrays inside, hostile files outside.

What a file holds and what becomes of it:
* colour, palette, grey, CMYK, YCbCr: to 8-bit RGB. CMYK is converted by plain arithmetic, without its ink profile.
* 16 bits per channel: to 8 bits. The networks' frames are 8-bit, and Pillow neither reads nor writes 16-bit colour.
* alpha, or a palette entry marked transparent: kept beside the colours, and written back where the format has alpha.
  Written as JPEG, BMP or PPM the picture is laid on white.
* EXIF orientation: applied, so that the picture is upright; no other EXIF data is carried over.
* an RGB colour profile (ICC): carried along, because the same numbers without it are other colours.
* several pages or frames in one file: the first.
"""

import os
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UnrainError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy as np

# About 9450 x 9450 pixels, 270 MB as RGB. Pillow's own limit warns at the same number.
MAX_PIXELS = 89_478_485
MIN_SIDE = 8

# Only these decoders run, whatever a file claims to be: Pillow's others (EPS calls Ghostscript) are for other work.
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".ppm": "PPM",
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF")
WITH_PROFILE = ("PNG", "JPEG", "WEBP", "TIFF")

_pillow_limit = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the networks want it, and what else the file said that should survive the round trip."""

    rgb: "np.ndarray"  # uint8 [H, W, 3]
    alpha: "np.ndarray | None" = None  # uint8 [H, W]
    profile: bytes | None = None
    grey: bool = False  # written back with one channel

    def with_rgb(self, rgb: "np.ndarray") -> "Picture":
        return replace(self, rgb=rgb)


def read_image(path: "str | Path", max_pixels: int = MAX_PIXELS) -> "np.ndarray":
    """The picture as uint8 RGB [H, W, 3]."""
    return read_picture(path, max_pixels).rgb


def read_picture(path: "str | Path", max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture with its alpha and colour profile. Anything wrong with the file is an UnrainError that names it."""
    import numpy as np
    from PIL import Image

    path = Path(path)
    if path.is_dir():
        raise UnrainError(f"{path} is a folder, not a picture")
    try:
        with path.open("rb") as file, _opened(file, Image) as image:
            _check_size(path, image.size, max_pixels)
            image.load()
            upright = _upright(image, Image)
            alpha = _alpha(upright)
            rgb = _rgb(path, upright, image.format)
            profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P", "PA") else None
            grey = upright.mode in ("1", "L", "LA", "I") or upright.mode.startswith("I;16")
    except UnrainError:
        raise
    except FileNotFoundError:
        raise UnrainError(f"{path} does not exist") from None
    except PermissionError:
        raise UnrainError(f"{path} may not be read (permission denied)") from None
    except MemoryError as error:
        raise UnrainError(f"{path} does not fit into memory") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UnrainError(f"{path} cannot be read as a picture: {_reason(error)}") from error
    return Picture(np.ascontiguousarray(rgb), alpha, profile, grey)


@contextmanager
def _opened(file: "Any", image_module: "Any") -> "Iterator[Any]":
    """Image.open without Pillow's global pixel limit: ours, which a caller may raise, is checked before decoding."""
    with _pillow_limit:
        before, image_module.MAX_IMAGE_PIXELS = image_module.MAX_IMAGE_PIXELS, None
        try:
            image = image_module.open(file, formats=READABLE)
        finally:
            image_module.MAX_IMAGE_PIXELS = before
    with image:
        yield image


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnrainError(
            f"{path} has {width} x {height} = {width * height:,} pixels, "
            f"the limit is {max_pixels:,} (--max-pixels raises it)"
        )
    if min(width, height) < MIN_SIDE:
        raise UnrainError(f"{path} has {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed")


def _upright(image: "Any", image_module: "Any") -> "Any":
    """The picture as its EXIF orientation says; broken EXIF data is no reason to refuse a good picture."""
    turn = image_module.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        return image
    return image.transpose(turns[orientation]) if orientation in turns else image


def _alpha(image: "Any") -> "np.ndarray | None":
    import numpy as np

    if image.mode.startswith("I"):
        return None
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return np.array(image.convert("RGBA").getchannel("A"))
    return None


def _rgb(path: Path, image: "Any", kind: str) -> "np.ndarray":
    import numpy as np

    # 16-bit grey; Pillow calls it "I" in a PGM, and older Pillow in a PNG.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        grey = ((np.minimum(values, 65535) * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UnrainError(f"{path} has 32-bit values, which have no fixed white: save it with 8 or 16 bits")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def write_image(
    path: "str | Path",
    rgb: "np.ndarray",
    alpha: "np.ndarray | None" = None,
    *,
    quality: int = 95,
    profile: bytes | None = None,
) -> None:
    """Write uint8 RGB [H, W, 3] (or grey [H, W]) in the format of the file name; missing folders are made.

    The file appears under its name only when it is complete. `quality` is for JPEG and WebP.
    """
    import numpy as np
    from PIL import Image

    path = Path(path)
    kind = format_of(path)
    if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or (rgb.ndim == 3 and rgb.shape[2] != 3):
        raise TypeError(f"rgb must be uint8 [H, W, 3] or [H, W], got {rgb.dtype} {list(rgb.shape)}")
    image = Image.fromarray(np.ascontiguousarray(rgb))
    if alpha is not None:
        image = _with_alpha(image, Image.fromarray(alpha), kind, Image)
    options: dict[str, Any] = {"format": kind}
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if kind == "TIFF":
        options["compression"] = "tiff_deflate"
    if profile and kind in WITH_PROFILE and rgb.ndim == 3:
        options["icc_profile"] = profile
    make_folder(path.parent)
    with _replacing(path) as file:
        image.save(file, **options)


def write_picture(path: "str | Path", picture: Picture, *, quality: int = 95) -> None:
    """Write a picture as it came: with its alpha and profile, and grey where it was grey."""
    rgb = picture.rgb
    if picture.grey:
        import numpy as np
        from PIL import Image

        rgb = np.array(Image.fromarray(rgb).convert("L"))
    write_image(path, rgb, picture.alpha, quality=quality, profile=picture.profile)


def _with_alpha(image: "Any", alpha: "Any", kind: str, image_module: "Any") -> "Any":
    if kind in WITH_ALPHA:
        image.putalpha(alpha)
        return image
    white = image_module.new(image.mode, image.size, "white")
    white.paste(image, mask=alpha)
    return white


def format_of(path: Path) -> str:
    """Pillow's name of the format that a file name asks for."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UnrainError(f"{path} has no picture suffix that can be written; use one of {' '.join(FORMATS)}")
    return kind


def make_folder(folder: Path) -> None:
    """Make the folder, and find out now rather than after the work whether a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".unrain-{secrets.token_hex(6)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UnrainError(f"{folder} cannot be written to: {_reason(error)}") from None


def check_writable(file: Path) -> None:
    """Find out now rather than after the work whether this file can be written; its folder is made."""
    if file.is_dir():
        raise UnrainError(f"{file} is a folder; a file's name is needed")
    make_folder(file.parent)


@contextmanager
def _replacing(path: Path) -> "Iterator[Any]":
    """A new file beside `path` that takes its name at the end, and is gone if anything goes wrong before."""
    temporary = path.with_name(f".unrain-{secrets.token_hex(6)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    except Exception as error:  # Pillow's encoders raise all kinds of errors at what they cannot hold
        raise UnrainError(f"{path} cannot be written: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """The system's words without the path, or the decoder's in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__name__ == "UnidentifiedImageError":
        return f"it is none of {', '.join(READABLE)}"
    return " ".join(str(error).split()) or type(error).__name__
