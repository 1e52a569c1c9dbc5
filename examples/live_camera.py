"""A camera through the wiper, with what the stream says of each frame on top.

    python examples/live_camera.py                       # camera 0, q ends it
    python examples/live_camera.py clip.mp4 --deadline 100 --carry image
    python examples/live_camera.py clip.mp4 --no-window --frames 20 --save last.png

Frames come from OpenCV where it is installed, else (files only) from PyAV.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

import unrain

COLOURS = {"OK": (46, 160, 67), "LATE": (210, 153, 34), "PASSTHROUGH": (207, 34, 46)}


def frames(source: str) -> Iterator[np.ndarray]:
    """uint8 RGB [H, W, 3], one after the other."""
    try:
        import cv2
    except ImportError:
        import av

        with av.open(source) as container:
            yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return
    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not camera.isOpened():
        raise SystemExit(f"{source} cannot be opened as a camera or a clip")
    try:
        while (found := camera.read())[0]:
            yield np.ascontiguousarray(found[1][:, :, ::-1])
    finally:
        camera.release()


def overlay(frame: np.ndarray, status: unrain.Status, stream: unrain.Stream) -> np.ndarray:
    """The frame with a bar: how it went, how long it took, and why where it is not OK."""
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, picture.width, 16), fill=COLOURS[status.outcome.value])
    draw.text((4, 2), line(status, stream), fill="white")
    return np.asarray(picture)


def line(status: unrain.Status, stream: unrain.Stream) -> str:
    late = stream.counters.outcomes["LATE"]
    passed = stream.counters.outcomes["PASSTHROUGH"]
    reason = f" | {status.reason}" if status.reason else ""
    return f"{status.outcome} {status.milliseconds:.0f} ms, {status.stages} stages | {late} late, {passed} raw{reason}"


def show(frame: np.ndarray) -> bool:
    """In a window; False when the user has had enough."""
    import cv2

    cv2.imshow("unrain", frame[:, :, ::-1])
    return cv2.waitKey(1) & 0xFF != ord("q")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="0", help="number of a camera, or a file (default: camera 0)")
    parser.add_argument("--model", default="srn", help="a name or a weights file (default: srn)")
    parser.add_argument("--deadline", type=float, default=33, help="milliseconds a frame may take (default: 33)")
    parser.add_argument("--carry", choices=("image", "state"), help="start from the frame before")
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--no-window", action="store_true", help="print a line per frame in place of a window")
    parser.add_argument("--save", help="write the last frame, with its bar, to this file")
    chosen = parser.parse_args()

    source = frames(chosen.source)
    first = next(source, None)
    if first is None:
        raise SystemExit(f"{chosen.source} gives no frames")
    engine = unrain.Engine(chosen.model)
    with unrain.Stream(engine, first.shape[:2], chosen.deadline, chosen.carry) as stream:
        frame, number = first, 0
        while frame is not None and number != chosen.frames:
            dry, status = stream.process(frame)
            shown = overlay(dry, status, stream)
            number += 1
            if chosen.no_window:
                print(f"frame {number}: {line(status, stream)}")
            elif not show(shown):
                break
            frame = next(source, None)
        if chosen.save:
            Image.fromarray(shown).save(chosen.save)
        times = stream.stats()["latency_ms"]
    print(f"{number} frames; latency p50 {times['p50']:.0f} ms, p99 {times['p99']:.0f} ms, max {times['max']:.0f} ms")


if __name__ == "__main__":
    main()
