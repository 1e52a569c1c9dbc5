"""Does deraining help a detector? Precision and recall of one detector on clean, rainy and derained frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import UnrainError

# Any detector: a frame uint8 RGB [H, W, 3] -> boxes [N, 4] of x1, y1, x2, y2 in pixels, the surest first where it
# knows.
Detector: TypeAlias = Callable[[np.ndarray], "np.ndarray | Sequence[Sequence[float]]"]


class HogPeopleDetector:
    """OpenCV's HOG people detector (Dalal and Triggs; INRIA weights, a 64 x 128 window) on RGB frames.

    OpenCV 5 moved it out of its main modules: it is in opencv-contrib-python(-headless) 5 and in any opencv-python 4.
    """

    def __init__(self, stride: int = 8, scale: float = 1.05, threshold: float = 0.0):
        try:
            import cv2
        except ImportError as error:
            raise UnrainError(f"the HOG people detector needs OpenCV: {_INSTALL}") from error
        if not hasattr(cv2, "HOGDescriptor"):
            raise UnrainError(f"OpenCV {cv2.__version__} comes without HOGDescriptor: {_INSTALL}")
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
        self._stride, self._scale, self._threshold = (stride, stride), scale, threshold

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        boxes, scores = self._hog.detectMultiScale(
            bgr, hitThreshold=self._threshold, winStride=self._stride, padding=(8, 8), scale=self._scale
        )
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        boxes = boxes[np.argsort(-np.asarray(scores, dtype=np.float64).ravel(), kind="stable")]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


_INSTALL = "pip install opencv-contrib-python-headless (in place of opencv-python-headless, not beside it)"


@dataclass(frozen=True)
class Score:
    """Detections counted over a clip. A precision without detections, or a recall without references, is NaN."""

    found: int  # detections that match a reference box
    detections: int
    references: int

    @property
    def precision(self) -> float:
        return self.found / self.detections if self.detections else float("nan")

    @property
    def recall(self) -> float:
        return self.found / self.references if self.references else float("nan")

    def to_dict(self) -> dict[str, float]:
        counts = {"found": self.found, "detections": self.detections, "references": self.references}
        return {"precision": self.precision, "recall": self.recall, **counts}


def compare_detections(
    detector: Detector,
    clips: Mapping[str, Iterable[np.ndarray]],
    boxes: Iterable[Sequence[Sequence[float]]] | None = None,
    iou: float = 0.5,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Score]:
    """The score of the detector on each clip, frame by frame, for example {"clean": ..., "rainy": ..., "derained":
    ...}.

    The references are `boxes`, the true ones of each frame, or else the detections on the clip named "clean", which
    then scores 1 by definition: what is measured is how far rain, and its removal, move the detector from what it sees
    in good weather. Clips may be generators; one frame of each is held at a time.
    """
    if boxes is None and "clean" not in clips:
        raise UnrainError('without true boxes the clips must hold one named "clean" to compare with')
    names = list(clips)
    counts = {name: [0, 0, 0] for name in names}
    truth = iter(boxes) if boxes is not None else None
    streams = [iter(clips[name]) for name in names]
    done = 0
    while True:
        frames = {name: next(stream, None) for name, stream in zip(names, streams, strict=True)}
        ended = [name for name, frame in frames.items() if frame is None]
        if len(ended) == len(names):
            break
        if ended:
            raise UnrainError(f"the clip {ended[0]!r} ends after {done} frames, before the others")
        found = {name: as_boxes(detector(frame)) for name, frame in frames.items() if frame is not None}
        reference = found["clean"] if truth is None else as_boxes(next(truth, None), f"the boxes of frame {done}")
        for name in names:
            counts[name][0] += matches(found[name], reference, iou)
            counts[name][1] += len(found[name])
            counts[name][2] += len(reference)
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise UnrainError("the clips hold no frames")
    return {name: Score(*counts[name]) for name in names}


def matches(found: np.ndarray, reference: np.ndarray, iou: float = 0.5) -> int:
    """How many found boxes match a reference box of their own: in their order, each takes the best one still free."""
    overlap = overlaps(found, reference)
    free = np.ones(len(reference), dtype=bool)
    count = 0
    for row in overlap:
        candidates = np.where(free, row, -1.0)
        if len(candidates) and candidates.max() >= iou:
            free[candidates.argmax()] = False
            count += 1
    return count


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and [M, 4] -> [N, M]."""
    corner1 = np.maximum(a[:, None, :2], b[None, :, :2])
    corner2 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(corner2 - corner1, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def as_boxes(boxes: np.ndarray | Sequence[Sequence[float]] | None, what: str = "the detector's boxes") -> np.ndarray:
    """[N, 4] in float64, checked."""
    if boxes is None:
        raise UnrainError(f"{what} are missing")
    array = np.asarray(boxes, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise UnrainError(f"{what} must be finite numbers [N, 4] of x1, y1, x2, y2, not {list(array.shape)}")
    return array
