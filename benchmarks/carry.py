"""What carrying memory from frame to frame is worth: PSNR against the stages a frame gets, on a rainy video.

    python benchmarks/carry.py CLIP ... [--weights FILE ...]

A CLIP is a folder that holds input/ and target/, or a dry video, which the rain generator then rains on. Writes
benchmarks/results/MACHINE/carry.json, and prints the same as a table. Every network runs by `Stream`, as a user
runs it, with no deadline; PSNR is over RGB, the mean of all frames, the first one too. `--crop` keeps the middle of
every frame, which leaves the curve and shortens the wait.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from unrain import Engine, Stream, load
from unrain.engine.benchmark.conditions import machine
from unrain.engine.console import print_table, progress_bar
from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.metrics import psnr_rgb
from unrain.engine.images import read_image
from unrain.engine.info import info
from unrain.engine.training.camera import Camera
from unrain.engine.training.rain import rain_on_video, sample_parameters
from unrain.engine.video.container import ContainerSource
from unrain.engine.video.frames import Frame

RESULTS = Path(__file__).parent / "results"
SEVERITY, SEED = 0.45, 4  # of the rain on a dry clip: rain alone, no mist, no noise
PICTURES = (".jpg", ".jpeg", ".png")

Pairs: TypeAlias = list[tuple[np.ndarray, np.ndarray]]  # rainy and clean, uint8 RGB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--weights", nargs="+", default=["srn"], help="names of models, or weights files of srn")
    parser.add_argument("--backend", default="fused")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--crop", default=None, help="WIDTHxHEIGHT")
    parser.add_argument("--stages", type=int, default=6, help="the full depth")
    parser.add_argument("--frames", type=int, default=None)
    chosen = parser.parse_args()
    try:
        with progress_bar() as bar:
            task = bar.add_task("carry", total=len(chosen.clips) * len(chosen.weights) * len(runs(chosen.stages)))
            clips = [measure(clip, chosen, lambda: bar.advance(task)) for clip in chosen.clips]
    except UnrainError as error:
        print(f"carry: {error}", file=sys.stderr)
        return 1
    report = {
        "backend": chosen.backend,
        "precision": chosen.precision,
        "full_depth": chosen.stages,
        "cpu": info()["cpu"]["name"],
        "clips": clips,
    }
    path = RESULTS / machine() / "carry.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    for clip in clips:
        show(clip, chosen.stages)
    print(f"written to {path}")
    return 0


def measure(clip: Path, chosen: argparse.Namespace, on_run: Callable[[], object]) -> dict[str, Any]:
    pairs = read_pairs(clip, chosen.crop, chosen.frames)
    height, width = pairs[0][0].shape[:2]
    return {
        "clip": clip.name,
        "rain": "as recorded" if clip.is_dir() else f"generated, severity {SEVERITY}, seed {SEED}",
        "frames": len(pairs),
        "size": [width, height],
        "psnr_rgb_rainy": round(statistics.mean(psnr_rgb(rainy, clean) for rainy, clean in pairs), 3),
        "psnr_rgb": {Path(weights).stem: curve(weights, pairs, chosen, on_run) for weights in chosen.weights},
    }


def runs(full: int) -> list[tuple[str | None, int]]:
    """What is carried, and how many stages a frame gets."""
    few = [stages for stages in (1, 2, 3) if stages < full]
    return [(None, stages) for stages in range(1, full + 1)] + [(c, s) for c in ("image", "state") for s in few]


def curve(
    weights: str, pairs: Pairs, chosen: argparse.Namespace, on_run: Callable[[], object]
) -> dict[str, dict[str, float]]:
    model = load("srn", weights) if weights.endswith((".pth", ".safetensors")) else load(weights)
    engine = Engine(model, backend=chosen.backend, precision=chosen.precision, device="cpu", stages=chosen.stages)
    result: dict[str, dict[str, float]] = {}
    for carry, stages in runs(chosen.stages):
        result.setdefault(carry or "nothing", {})[str(stages)] = round(quality(engine, carry, stages, pairs), 3)
        on_run()
    return result


def quality(engine: Engine, carry: str | None, stages: int, pairs: Pairs) -> float:
    found = []
    with Stream(engine, pairs[0][0].shape[:2], deadline_ms=1e9, carry=carry, stages=stages) as stream:
        for number, (rainy, clean) in enumerate(pairs):
            dry, status = stream.process(rainy, timestamp=number / 30)
            if status.outcome != "OK":
                raise UnrainError(f"frame {number} was not derained: {status.reason}")
            found.append(psnr_rgb(dry, clean))
    return statistics.mean(found)


def read_pairs(clip: Path, crop: str | None, count: int | None) -> Pairs:
    if clip.is_file():
        return rained_on(clip, crop, count or 24)
    folder = clip / "input"
    if not folder.is_dir():
        raise UnrainError(f"{clip} is no video, and holds no folder input/ (and target/)")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)[:count]
    if not files:
        raise UnrainError(f"{folder} holds no pictures")
    return [(middle(read_image(path), crop), middle(read_image(clip / "target" / path.name), crop)) for path in files]


def rained_on(clip: Path, crop: str | None, count: int) -> Pairs:
    source = ContainerSource(str(clip), live=False)
    dry = [middle(item.rgb, crop) for item in islice((x for x in source if isinstance(x, Frame)), count)]
    source.close()
    rain = replace(sample_parameters(np.random.default_rng(SEED), SEVERITY), camera=Camera())
    return list(zip(rain_on_video(iter(dry), rain, seed=SEED, fps=30), dry, strict=True))


def middle(picture: np.ndarray, crop: str | None) -> np.ndarray:
    if crop is None:
        return picture
    width, height = map(int, crop.split("x"))
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def show(report: dict[str, Any], full: int) -> None:
    for name, curves in report["psnr_rgb"].items():
        rows = [
            [carried, *(f"{points[str(s)]:.2f}" if str(s) in points else "" for s in range(1, full + 1))]
            for carried, points in curves.items()
        ]
        title = f"{report['clip']}, {name}: dB by stages a frame (rainy {report['psnr_rgb_rainy']:.2f} dB)"
        print_table(["carried", *(f" {s}" for s in range(1, full + 1))], rows, title)


if __name__ == "__main__":
    sys.exit(main())
