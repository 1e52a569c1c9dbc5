"""What carrying memory from frame to frame is worth: PSNR against the stages a frame gets, on a rainy video.

    python benchmarks/carry.py CLIP [--weights FILE ...]     CLIP holds the folders input/ and target/

Writes benchmarks/results/MACHINE/carry.json, and prints the same as a table. Every network runs by `Stream`, as a user
runs it, with no deadline; PSNR is over RGB, the mean of all frames, the first one too. `--crop` keeps the middle of
every frame, which leaves the curve and shortens the wait.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

from unrain import Engine, Stream, load
from unrain.engine.cli.console import print_table, progress_bar
from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.metrics import psnr_rgb
from unrain.engine.images import read_image
from unrain.engine.info import info

RESULTS = Path(__file__).parent / "results"
PICTURES = (".jpg", ".jpeg", ".png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--weights", nargs="+", default=["srn"], help="names of models, or weights files of srn")
    parser.add_argument("--backend", default="fused")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--crop", default=None, help="WIDTHxHEIGHT")
    parser.add_argument("--stages", type=int, default=6, help="the full depth")
    parser.add_argument("--frames", type=int, default=None)
    chosen = parser.parse_args()
    try:
        pairs = read_pairs(chosen.clip, chosen.crop, chosen.frames)
        curves = {}
        with progress_bar() as bar:
            task = bar.add_task("carry", total=len(chosen.weights) * len(runs(chosen.stages)))
            for weights in chosen.weights:
                curves[Path(weights).stem] = curve(weights, pairs, chosen, lambda: bar.advance(task))
    except UnrainError as error:
        print(f"carry: {error}", file=sys.stderr)
        return 1
    height, width = pairs[0][0].shape[:2]
    report = {
        "clip": chosen.clip.name,
        "frames": len(pairs),
        "size": [width, height],
        "backend": chosen.backend,
        "precision": chosen.precision,
        "cpu": info()["cpu"]["name"],
        "psnr_rgb_rainy": round(statistics.mean(psnr_rgb(rainy, clean) for rainy, clean in pairs), 3),
        "psnr_rgb": curves,
    }
    path = RESULTS / machine() / "carry.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    show(report, chosen.stages)
    print(f"written to {path}")
    return 0


def runs(full: int) -> list[tuple[str | None, int]]:
    """What is carried, and how many stages a frame gets."""
    few = [stages for stages in (1, 2, 3) if stages < full]
    return [(None, stages) for stages in range(1, full + 1)] + [(c, s) for c in ("image", "state") for s in few]


def curve(weights: str, pairs: list, chosen: argparse.Namespace, on_run) -> dict[str, dict[str, float]]:
    model = load("srn", weights) if weights.endswith((".pth", ".safetensors")) else load(weights)
    engine = Engine(model, backend=chosen.backend, precision=chosen.precision, device="cpu", stages=chosen.stages)
    result: dict[str, dict[str, float]] = {}
    for carry, stages in runs(chosen.stages):
        result.setdefault(carry or "nothing", {})[str(stages)] = round(quality(engine, carry, stages, pairs), 3)
        on_run()
    return result


def quality(engine: Engine, carry: str | None, stages: int, pairs: list) -> float:
    found = []
    with Stream(engine, pairs[0][0].shape[:2], deadline_ms=1e9, carry=carry, stages=stages) as stream:
        for number, (rainy, clean) in enumerate(pairs):
            dry, status = stream.process(rainy, timestamp=number / 30)
            if status.outcome != "OK":
                raise UnrainError(f"frame {number} was not derained: {status.reason}")
            found.append(psnr_rgb(dry, clean))
    return statistics.mean(found)


def read_pairs(clip: Path, crop: str | None, count: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    folder = clip / "input"
    if not folder.is_dir():
        raise UnrainError(f"{clip} holds no folder input/ (and target/)")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)[:count]
    pairs = [(read_image(path), read_image(clip / "target" / path.name)) for path in files]
    if not pairs:
        raise UnrainError(f"{folder} holds no pictures")
    return [tuple(middle(picture, crop) for picture in pair) for pair in pairs]  # type: ignore[misc]


def middle(picture: np.ndarray, crop: str | None) -> np.ndarray:
    if crop is None:
        return picture
    width, height = map(int, crop.split("x"))
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def machine() -> str:
    cpu = info()["cpu"]
    return "-".join(
        [*str(cpu["name"]).lower().replace("(r)", " ").replace("(tm)", " ").split(), f"{cpu['cores']}-cores"]
    )


def show(report: dict, full: int) -> None:
    for name, curves in report["psnr_rgb"].items():
        rows = [
            [carried, *(f"{points[str(s)]:.2f}" if str(s) in points else "" for s in range(1, full + 1))]
            for carried, points in curves.items()
        ]
        title = f"{name}: dB by stages a frame (rainy {report['psnr_rgb_rainy']:.2f} dB)"
        print_table(["carried", *(f" {s}" for s in range(1, full + 1))], rows, title)


if __name__ == "__main__":
    sys.exit(main())
