"""One picture of `unrain run`, from file to file, here or on a worker of a cluster."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.console import complain
from ..engine.errors import UnrainError
from ..engine.images import read_picture, write_image, write_picture
from ..opening import memory_error
from .plan import Job

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Result:
    input: str
    output: str
    status: str  # done, failed or skipped
    width: int | None = None
    height: int | None = None
    ms: float | None = None
    error: str | None = None
    video: dict[str, Any] | None = None


def derain_picture(job: Job, derain: "Callable[[np.ndarray], np.ndarray]", max_pixels: int, quality: int) -> Result:
    """One picture from file to file. What goes wrong is said on stderr and kept in the result."""
    result = Result(str(job.source), str(job.target), "done")
    try:
        picture = read_picture(job.source, max_pixels)
        result.height, result.width = picture.rgb.shape[:2]
        start = time.perf_counter()
        try:
            dry = derain(picture.rgb)
        except (RuntimeError, MemoryError) as error:
            raise memory_error(error, picture.rgb) or error from error
        result.ms = round((time.perf_counter() - start) * 1e3, 1)
        write_picture(job.target, picture.with_rgb(dry), quality=quality)
        if job.compared:
            write_image(job.compared, side_by_side(picture.rgb, dry), quality=quality)
    except UnrainError as error:
        result.status, result.error = "failed", str(error)
        complain(str(error))
    return result


def side_by_side(before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
    """Before, a white line, after."""
    import numpy as np

    line = np.full((before.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([before, line, after], axis=1)
