"""One network by every way of running it: time, fidelity to the reference, and the share of the machine's limit."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnrainError
from ..runtime import Engine, fidelity
from ..runtime.backends import PRECISIONS
from ..runtime.selection.candidates import candidates
from . import limits as bounds
from . import results
from .timing import interleaved, spread

REFERENCE = ("eager", "fp32")
OURS = ("fused", "auto")
AUTO = ("fp32", "auto", "int8")  # what the engine is asked for when the backend is its own choice
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_REQUIRED = {**fidelity.LIMITS, "auto": 50.0}

Run = Callable[[Tensor], Tensor]


@dataclass
class Row:
    """A way to run the network. No samples: `reason` says why it was not timed."""

    backend: str
    precision: str
    run: Run | None = None
    reason: str | None = None
    runs: str = ""  # what an "auto" row settled on
    decibels: float | None = None
    ready: float | None = None  # seconds until its first picture was there
    samples: list[float] = field(default_factory=list)  # ms
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.backend} {self.precision}"


def rows(
    model: nn.Module,
    picture: Tensor,
    threads: int | None,
    wanted: Callable[[str, str], bool] = lambda backend, precision: True,
    on_row: Callable[[str], object] = lambda name: None,
) -> list[Row]:
    """Every way, made ready and compared with the plain float32 network on `picture`; none is timed yet."""
    device = picture.device
    found = [_engine_row(model, picture, threads, "eager", "fp32", on_row)]
    reference = _result(found[0], picture)
    for precision in ("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16"):
        if wanted("channels-last", precision):
            found.append(_channels_last_row(model, picture, precision, on_row))
    for each in candidates(model, device):
        if (each.backend, each.precision) == REFERENCE or not wanted(each.backend, each.precision):
            continue
        if each.reason is not None:
            found.append(Row(each.backend, each.precision, reason=each.reason))
        else:
            found.append(_engine_row(model, picture, threads, each.backend, each.precision, on_row))
    for precision in ("fp32", "bf16") if device.type == "cpu" and picture.shape[0] == 1 and _has_ncnn() else ():
        if wanted("ncnn", precision):
            found.append(_ncnn_row(model, picture, threads, precision, on_row))
    for precision in AUTO:
        if wanted("auto", precision):
            found.append(_engine_row(model, picture, threads, "auto", precision, on_row))
    for row in found[1:]:
        judge(row, picture, reference)
    return found


def judge(row: Row, picture: Tensor, reference: Tensor) -> None:
    """A row that is too far from the reference loses the right to be timed."""
    if row.run is None:
        return
    row.decibels = fidelity.decibels(_result(row, picture), reference)
    required = _REQUIRED[row.precision]
    if row.decibels < required:
        row.run = None
        row.reason = f"wrong: {row.decibels:.1f} dB to the fp32 reference, {required:g} are needed"


def time_rows(found: list[Row], picture: Tensor, rounds: int, on_round: Callable[[], object] | None = None) -> None:
    """In rounds that take turns; rows without a `run` stay without a time."""
    contenders: dict[str, Callable[[], Any]] = {}
    for row in found:
        if row.run is not None:
            contenders[row.key] = lambda run=row.run: run(picture)
    samples = interleaved(contenders, rounds, warmups=1, on_round=on_round)
    for row in found:
        if row.key in samples:
            row.samples = samples[row.key]


def report(
    found: list[Row], model: nn.Module, picture: Tensor, limits: bounds.Limits, case: str
) -> list[dict[str, Any]]:
    """The rows as plain JSON types."""
    count = counted(model, picture)
    reference = spread(found[0].samples).median if found[0].samples else None
    answer = []
    for row in found:
        one = results.row(
            case,
            row.key,
            row.samples,
            limits,
            ours=row.backend in OURS,
            reason=row.reason,
            **count(row),
            **extra(row),
        )
        one["times_eager"] = round(reference / one["median_ms"], 3) if reference and one["median_ms"] else None
        answer.append(one)
    return answer


def counted(model: nn.Module, picture: Tensor) -> Callable[[Row], dict[str, Any]]:
    """Of a row: the precision it runs in, and the operations and bytes that this takes at the least."""
    height, width = picture.shape[-2:]
    count = bounds.operations(model, height, width)
    saved = bounds.winograd_saves(model, height, width) if picture.device.type == "cpu" else 0

    def of(row: Row) -> dict[str, Any]:
        backend, precision = (row.runs or f"{row.backend} {row.precision}").split()
        winograd = backend == "fused" and saved > 0
        return {
            "precision": precision,
            "operations": count - saved if winograd else count,
            "algorithm": "winograd" if winograd else None,
            "traffic": bounds.traffic(model, height, width, precision),
        }

    return of


def extra(row: Row) -> dict[str, Any]:
    """What a network's row says beside its times."""
    finite = row.decibels is not None and row.decibels != float("inf")
    return {
        "backend": row.backend,
        "asked": row.precision,
        "runs": row.runs or row.key,
        "fidelity_db": round(row.decibels, 2) if finite and row.decibels is not None else None,
        "required_db": None if (row.backend, row.precision) == REFERENCE else _REQUIRED[row.precision],
        "notes": row.notes,
        "ready_s": None if row.ready is None else round(row.ready, 2),
    }


def _engine_row(
    model: nn.Module,
    picture: Tensor,
    threads: int | None,
    backend: str,
    precision: str,
    on_row: Callable[[str], object],
) -> Row:
    row = Row(backend, precision)
    on_row(row.key)
    begin = time.perf_counter()
    try:
        engine = Engine(model, backend=backend, precision=precision, device=picture.device, threads=threads)
        engine(picture)
    except UnrainError as error:
        row.reason = str(error)
        return row
    row.ready = time.perf_counter() - begin
    explained = engine.explain()
    row.runs = f"{explained['backend']} {explained['precision']}"
    if explained["tile"] is not None:
        row.notes.append(f"tiles of {' x '.join(map(str, explained['tile']))}")
    if backend != "auto" and explained["precision"] != precision:
        row.reason = f"wrong: {explained['others'].get(row.key, 'it fell back to ' + row.runs)}"
        return row
    row.run = lambda x: engine(x)  # type: ignore[return-value]
    return row


def _channels_last_row(model: nn.Module, picture: Tensor, precision: str, on_row: Callable[[str], object]) -> Row:
    """Plain PyTorch after its tuning guide: one line for the layout, one for the precision."""
    row = Row("channels-last", precision)
    if precision == "bf16" and picture.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        row.reason = "this CPU has no bf16 arithmetic"
        return row
    on_row(row.key)
    begin = time.perf_counter()
    own: Any = deepcopy(model).to(picture.device, _DTYPES[precision]).eval()
    own = own.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        y = own(x.to(_DTYPES[precision]).contiguous(memory_format=torch.channels_last))
        return y.float().clamp(0, 1)

    try:
        run(picture)
    except RuntimeError as error:
        row.reason = f"it failed: {str(error).splitlines()[0][:200]}"
        return row
    row.ready, row.run = time.perf_counter() - begin, run
    return row


def _has_ncnn() -> bool:
    return all(find_spec(name) is not None for name in ("ncnn", "pnnx"))


def _ncnn_row(
    model: nn.Module, picture: Tensor, threads: int | None, precision: str, on_row: Callable[[str], object]
) -> Row:
    """The runtime of phones and boards, on files for this size; its bf16 is how it stores what lies between layers."""
    from ..runtime.ncnn import Net, convert

    row = Row("ncnn", precision)
    on_row(row.key)
    begin = time.perf_counter()
    try:
        with TemporaryDirectory() as folder:
            net = Net(*convert(model, tuple(picture.shape[-2:]), Path(folder)), precision, threads)
        net.run(picture.numpy())
    except UnrainError as error:
        row.reason = str(error)
        return row
    row.ready, row.run = time.perf_counter() - begin, lambda x: torch.from_numpy(net.run(x.numpy()))
    return row


def _result(row: Row, picture: Tensor) -> Tensor:
    if row.run is None:
        raise UnrainError(f"the reference itself does not run: {row.reason}")
    result = row.run(picture).clone()
    gc.collect()
    return result


def known(backend: str, precision: str) -> bool:
    """Whether a table may hold rows of that name."""
    from ..runtime.backends import BACKENDS

    return backend in (*BACKENDS, "channels-last", "ncnn", "auto", "") and precision in (*PRECISIONS, "auto", "")
