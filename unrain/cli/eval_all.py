"""`unrain eval all`: all shipped weights over any number of data sets, in one table for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.console import print_table, progress_bar
from ..engine.errors import UnrainError
from ..opening import load_model

if TYPE_CHECKING:
    import torch

    from ..engine.evaluation.evaluate import Quantise
    from ..engine.evaluation.pairs import Pair

METRICS = ("psnr_y", "ssim_y")  # of sets with clean pictures; photos have niqe


def measure_all(
    sets: dict[str, tuple[list["Pair"], Sequence[str]]], device: "torch.device", quantise: "Quantise"
) -> dict[str, Any]:
    """For each set: its pictures, the rainy ones' means, and the means and the median seconds of each network."""
    from ..engine.evaluation.evaluate import evaluate

    names = shipped()
    found: dict[str, Any] = {name: {"pictures": len(pairs), "weights": {}} for name, (pairs, _) in sets.items()}
    with progress_bar() as bar:
        task = bar.add_task("evaluate", total=len(names) * sum(len(pairs) for pairs, _ in sets.values()))
        for name in names:
            network = load_model(name).to(device)
            bar.update(task, description=name)
            for data, (pairs, metrics) in sets.items():
                report = evaluate(
                    network, pairs, metrics, quantise=quantise, progress=lambda *_: bar.advance(task), examples=0
                )
                found[data]["rainy"] = report.rainy
                found[data]["weights"][name] = {**report.output, "seconds": report.seconds}
    return {"quantise": quantise, "sets": found}


def shipped() -> list[str]:
    from ..engine.models import WEIGHTS, models

    return [name for name in models() if (WEIGHTS / f"{name}.safetensors").is_file()]


def print_all(answer: dict[str, Any]) -> None:
    for data, found in answer["sets"].items():
        metrics = list(found["rainy"])
        rows = [["rainy", *_row(found["rainy"], metrics), ""]]
        for name, means in found["weights"].items():
            rows.append([name, *_row(means, metrics), f"{means['seconds'] * 1e3:.0f}"])
        count = f"{found['pictures']} picture{'s' if found['pictures'] != 1 else ''}"
        title = f"{data}: {count}, 8 bits by {answer['quantise']}"
        print_table(["weights", *(f" {title_of(key)}" for key in metrics), " median ms"], rows, title)


def title_of(metric: str) -> str:
    from ..engine.evaluation.metrics import BLIND

    return f"{metric} (less is better)" if metric in BLIND else metric


def name_sets(folders: list[Path]) -> dict[str, Path]:
    """By their last names, which must tell them apart."""
    named = {folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise UnrainError("two of these data sets have one name, and the table could not tell them apart")
    return named


def _row(means: dict[str, float], metrics: list[str]) -> list[str]:
    return [f"{means[key]:.2f} dB" if key.startswith("psnr") else f"{means[key]:.4f}" for key in metrics]
