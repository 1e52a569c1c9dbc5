"""Does deraining help your detector? Measure it: one detector on a clean clip, the same in rain, and derained.

    python examples/detector.py street.mp4                              # OpenCV's people detector
    python examples/detector.py street.mp4 --detector mine:find --severity 0.8

A detector is any function from a uint8 RGB frame [H, W, 3] to boxes [N, 4] of x1, y1, x2, y2 in pixels. What it finds
on the clean clip is what counts as right. In front of a real camera the loop is three lines:

    derain = unrain.Engine("srn")
    for frame in camera:
        boxes = detector(derain(frame))
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice, tee

import av
import numpy as np

import unrain
from unrain.engine.evaluation.detector import HogPeopleDetector, compare_detections
from unrain.engine.training.rain import rain_on_video, sample_parameters

FPS = 25


def read(clip: str, count: int, every: int) -> list[np.ndarray]:
    with av.open(clip) as container:
        frames = islice(container.decode(video=0), 0, count * every, every)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def find_detector(name: str) -> Callable:
    if name == "people":
        return HogPeopleDetector()
    module, _, function = name.partition(":")
    sys.path.insert(0, "")  # a file in this folder will do
    return getattr(import_module(module), function)


def derained(rainy: Iterator[np.ndarray], model: str) -> Iterator[np.ndarray]:
    derain = unrain.Engine(model)
    return (derain(frame) for frame in rainy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="a video in good weather")
    parser.add_argument("--detector", default="people", help="'people' (default) or MODULE:FUNCTION")
    parser.add_argument("--model", default="srn", help="a name or a weights file (default: srn)")
    parser.add_argument("--severity", type=float, default=0.5, help="of the rain, from 0 to 1 (default 0.5)")
    parser.add_argument("--frames", type=int, default=20, help="how many to look at (default 20)")
    parser.add_argument("--every", type=int, default=5, help="look at every so many frames (default 5)")
    chosen = parser.parse_args()

    clean = read(chosen.clip, chosen.frames, chosen.every)
    rain = sample_parameters(np.random.default_rng(0), chosen.severity)
    rainy, again = tee(np.asarray(frame) for frame in rain_on_video(iter(clean), rain, seed=0, fps=FPS / chosen.every))
    clips = {"clean": clean, "rainy": rainy, "derained": derained(again, chosen.model)}
    scores = compare_detections(find_detector(chosen.detector), clips)
    print(f"{len(clean)} frames, rain of severity {chosen.severity}, boxes that overlap by half count as found")
    for name, score in scores.items():
        print(f"  {name:9} precision {score.precision:5.3f}   recall {score.recall:5.3f}   {score.detections} boxes")


if __name__ == "__main__":
    main()
