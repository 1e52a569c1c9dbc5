"""A case: one job, the ways to do it that compete, and the race between them, which a wrong result may not enter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unrain import kernels
from unrain.engine.benchmark.timing import interleaved, milliseconds

Tensor = torch.Tensor
Contender = Callable[[], Any]
OURS = "unrain"


class Absent(Exception):
    """A contender that is not there: the message is the reason, and its row is skipped with it."""


@dataclass(frozen=True)
class Case:
    """`exact` is the result in float64, of the plain reference; `traffic` the bytes and `operations` the additions and
    multiplications that the job takes at the least.

    `plain` is the plain result in the same precision, which says how exact ours must be; ours on the reference backend
    where it is left out. A contender is a function without arguments that returns tensors (or numpy images).
    """

    name: str
    contenders: Mapping[str, Contender]
    exact: Contender
    traffic: int
    operations: int = 0
    plain: Contender | None = None
    goals: Mapping[str, float] = field(
        default_factory=dict
    )  # contender -> how many times slower than ours it should be
    gate: Callable[[], str | None] | None = None  # what else ours must pass: says what is wrong
    precision: str = "fp32"
    rounds: int = 15
    warmups: int = 2
    room: float = 2  # how many times as much as the plain result ours may err


@dataclass
class Outcome:
    """What became of one contender: `samples` in milliseconds, or why there are none."""

    samples: list[float] = field(default_factory=list)
    wrong: str | None = None
    absent: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def is_ours(contender: str) -> bool:
    return contender.replace(",", " ").split()[0] in (OURS, "fused", "auto")


def race(case: Case, names: list[str], clock: Callable[[Contender], float] = milliseconds) -> dict[str, Outcome]:
    """Each contender's result is checked, then those that are right take turns. `names`: those that are wanted."""
    with kernels.use("reference"):
        exact = case.exact()
        plain = (case.plain or case.contenders[OURS])() if case.plain or OURS in case.contenders else None
    found: dict[str, Outcome] = {}
    for name in names:
        found[name] = Outcome()
        try:
            result = case.contenders[name]()
        except (Absent, ImportError) as missing:
            found[name].absent = str(missing)
            continue
        found[name].wrong = wrong(result, exact, plain if name.startswith(OURS) else None, case.room)
        if name == OURS and not found[name].wrong and case.gate is not None:
            found[name].wrong = case.gate()
        del result
    right = {name: case.contenders[name] for name in names if not (found[name].wrong or found[name].absent)}
    for name, samples in interleaved(right, case.rounds, case.warmups, clock=clock).items():
        found[name].samples = samples
    return found


def tensors(result: Any) -> list[Tensor]:
    """A contender's result as a flat list of tensors."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [torch.from_numpy(each) if isinstance(each, np.ndarray) else each.detach() for each in parts]


def wrong(result: Any, exact: Any, plain: Any = None, room: float = 2) -> str | None:
    """What is wrong with a result, or None. `plain`: the plain reference's result, which sets how exact ours must be.

    Ours may err at most twice (`room`) as much as plain PyTorch in the same precision, plus one unit in the last place;
    a rival need only compute the same thing.
    """
    result, exact = tensors(result), tensors(exact)
    if len(result) != len(exact):
        return f"{len(result)} results where there should be {len(exact)}"
    for index, (got, true) in enumerate(zip(result, exact, strict=True)):
        if got.shape != true.shape:
            return f"result {index} has shape {tuple(got.shape)}, not {tuple(true.shape)}"
        if not got.is_floating_point():
            if not torch.equal(got.cpu(), true.cpu().to(got.dtype)):
                return f"result {index} differs"
            continue
        got, true = got.double().cpu(), true.double().cpu()
        if not got.numel():
            continue
        error = (got - true).abs().max()
        spacing = torch.finfo(result[index].dtype).eps * true.abs().max()
        usual = (tensors(plain)[index].double().cpu() - true).abs().max() if plain is not None else 1e3 * spacing
        if not error <= room * usual + spacing:
            return f"result {index} is off by {error:.2e}, where {room * usual + spacing:.2e} is allowed"
    return None
