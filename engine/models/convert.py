"""A published .pth checkpoint, once converted, is a .safetensors file like any other."""

from pathlib import Path
from typing import Any

from ..errors import UnrainError
from .checkpoint import load_file, save


def convert(src: str | Path, dst: str | Path, name: str | None = None, stages: int | None = None) -> dict[str, Any]:
    """Write the published checkpoint `src` as safetensors `dst`; the answer says what was recognised and assumed."""
    if Path(src).suffix == ".safetensors" or Path(dst).suffix != ".safetensors":
        raise UnrainError(f"convert reads a published .pth file and writes .safetensors; got {src} and {dst}.")
    if stages is not None and stages < 1:
        raise UnrainError(f"stages must be at least 1, got {stages}.")
    model = load_file(src, name)
    model.stages = stages or model.stages
    origin = {key: model.card[key] for key in ("source", "source_sha256", "note")}
    save(model, dst, **origin)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    summary = {"model": model.name, "stages": model.stages, "parameters": parameters, "unused": model.card["unused"]}
    return {**summary, **origin, "output": str(dst)}
