"""The targets that are ONNX files: onnx, int8, server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ...engine.errors import UnrainError
from ..server.repository import export_server
from ..targets import Options, Outcome
from .export import Exported, export_onnx


def to_onnx(model: nn.Module, output: Path, options: Options) -> Outcome:
    return _outcome(export_onnx(model, output, **_graph_options(options)))


def to_int8(model: nn.Module, output: Path, options: Options) -> Outcome:
    if options.precision != "int8":
        raise UnrainError(f"--to int8 is int8, not {options.precision}; take --to onnx for that")
    return to_onnx(model, output, options)


def to_server(model: nn.Module, output: Path, options: Options) -> Outcome:
    exported = export_server(model, output, options.name, options.largest_batch, **_graph_options(options))
    outcome = _outcome(exported)
    outcome.files.append(exported.path.parent.parent / "config.pbtxt")
    return outcome


def _graph_options(options: Options) -> dict[str, Any]:
    names = ("precision", "stages", "size", "batch", "frames", "state", "pictures", "others", "opset")
    return {name: getattr(options, name) for name in names}


def _outcome(exported: Exported) -> Outcome:
    notes = []
    if exported.islands:
        counts = {reason: len(nodes) for reason, nodes in exported.islands._asdict().items() if nodes}
        said = ", ".join(f"{count} for {reason.replace('_', ' ')}" for reason, count in counts.items())
        notes.append(f"nodes that stay in fp32: {said}")
    if exported.beyond:
        notes += [f"{layer.node} meets {layer.largest:.3g}, beyond half precision: fp32" for layer in exported.beyond]
    if exported.int8:
        total = len(exported.int8.int8) + len(exported.int8.kept)
        notes.append(f"{len(exported.int8.int8)} of {total} convolutions in int8")
        notes += [f"{layer} stays in higher precision: {db:.1f} dB alone" for layer, db in exported.int8.kept.items()]
    details = {**exported.description, "bytes": exported.path.stat().st_size}
    return Outcome([exported.path], notes, details, verify=exported.path)
