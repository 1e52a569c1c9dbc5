"""Matching and counting detections, any detector through the hook, and OpenCV's people detector where it is."""

import math

import numpy as np
import pytest

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.detector import HogPeopleDetector, compare_detections, matches, overlaps

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [100, 100, 110, 110]


def boxes(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def frame(*rows):
    """A black frame that holds white boxes."""
    image = np.zeros((120, 120, 3), np.uint8)
    for x1, y1, x2, y2 in rows:
        image[y1:y2, x1:x2] = 255
    return image


def bright(image):
    """A detector: the bright ones of the known boxes."""
    return [box for box in (A, B, FAR) if image[box[1] : box[3], box[0] : box[2]].mean() > 128]


def test_overlaps():
    found = overlaps(boxes(A, [5, 0, 15, 10], FAR), boxes(A, B))
    assert found == pytest.approx(np.array([[1, 0], [1 / 3, 0], [0, 0]]))
    assert overlaps(boxes([3, 3, 3, 3]), boxes([3, 3, 3, 3])) == 0
    assert overlaps(boxes(), boxes(A)).shape == (0, 1)


def test_each_reference_is_matched_once_by_the_first_that_fits():
    assert matches(boxes(A, A), boxes(A)) == 1
    assert matches(boxes(A, B), boxes(B, A)) == 2
    assert matches(boxes([0, 0, 10, 4]), boxes(A)) == 0
    assert matches(boxes([0, 0, 10, 5]), boxes(A)) == 1  # exactly one half counts
    assert matches(boxes(), boxes(A)) == matches(boxes(A), boxes()) == 0


def test_precision_and_recall_against_the_clean_clip():
    clips = {
        "clean": [frame(A, B), frame(A), frame()],
        "rainy": [frame(A), frame(FAR), frame()],
        "derained": [frame(A, B), frame(), frame(FAR)],
    }
    scores = compare_detections(bright, clips)
    assert (scores["clean"].precision, scores["clean"].recall) == (1, 1)
    assert (scores["rainy"].precision, scores["rainy"].recall) == (0.5, pytest.approx(1 / 3))
    assert (scores["derained"].precision, scores["derained"].recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert scores["rainy"].to_dict()["detections"] == 2


def test_given_boxes_are_the_truth():
    scores = compare_detections(bright, {"rainy": iter([frame(A), frame()])}, boxes=[[A, B], []])
    assert (scores["rainy"].precision, scores["rainy"].recall) == (1, 0.5)


def test_nothing_found_has_no_precision():
    scores = compare_detections(bright, {"clean": [frame()], "rainy": [frame()]})
    assert math.isnan(scores["rainy"].precision) and math.isnan(scores["rainy"].recall)


def test_progress_counts_the_frames():
    seen = []
    compare_detections(bright, {"clean": [frame(A)] * 3}, progress=seen.append)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("clips", "truth", "message"),
    [
        ({"rainy": [frame()]}, None, 'named "clean"'),
        ({"clean": [frame()] * 2, "rainy": [frame()]}, None, "'rainy' ends after 1 frames"),
        ({"clean": []}, None, "no frames"),
        ({"rainy": [frame()] * 2}, [[A]], "boxes of frame 1 are missing"),
    ],
)
def test_clips_that_do_not_go_together(clips, truth, message):
    with pytest.raises(UnrainError, match=message):
        compare_detections(bright, clips, truth)


def test_a_detector_must_give_boxes():
    with pytest.raises(UnrainError, match=r"\[N, 4\]"):
        compare_detections(lambda image: [[1, 2, 3]], {"clean": [frame()]})


def test_opencv_without_the_detector_is_a_clear_error(monkeypatch):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.delattr(cv2, "HOGDescriptor", raising=False)
    with pytest.raises(UnrainError, match="opencv-contrib-python-headless"):
        HogPeopleDetector()


def test_opencv_finds_people(shared):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip(f"OpenCV {cv2.__version__} without contrib modules has no HOG people detector")
    video = cv2.VideoCapture(str(shared("data/video/clean/vtest.avi")))
    for _ in range(20):
        read, image = video.read()
    assert read
    people = HogPeopleDetector()(np.ascontiguousarray(image[:, :, ::-1]))
    assert len(people) >= 2
    height, width = image.shape[:2]
    centres = (people[:, :2] + people[:, 2:]) / 2
    assert (people[:, 2:] > people[:, :2]).all() and (centres >= 0).all() and (centres <= (width, height)).all()
    # A blank wall holds nobody.
    assert len(HogPeopleDetector()(np.full((200, 200, 3), 90, np.uint8))) == 0
