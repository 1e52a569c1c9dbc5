"""`unrain info`: what this machine and this installation have, and why the rest is missing."""

from typing import Annotated

import typer

from ..engine.console import print_json, print_table

WHAT = {
    "eager": "plain PyTorch, which all others are compared with",
    "fused": "our own kernels, a network at a time",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT for RTX",
    "native": "the compiled part: operations in C++",
    "triton": "operations in Triton",
    "cupy": "operations in CUDA, compiled on first use",
}


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Show versions, processor, GPUs, and every backend with the reason where one is not available."""
    from ..engine.info import info

    facts = info()
    if as_json:
        print_json(facts)
        return
    versions = {name: version for name, version in facts["versions"].items() if version}
    print(", ".join(f"{name} {versions.pop(name)}" for name in ("unrain", "python", "torch")))
    cpu = facts["cpu"]
    print(f"processor: {cpu['name']}, {cpu['cores_usable']} of {cpu['cores']} cores, torch uses {cpu['capability']}")
    print("features:", " ".join(cpu["features"]) or "unknown")
    for gpu in facts["gpus"] or ["none"]:
        print("gpu:", gpu if isinstance(gpu, str) else _gpu_line(gpu))
    print("packages:", ", ".join(f"{name} {version}" for name, version in versions.items()))
    rows = (
        [name, "yes" if backend["available"] else "no", backend["version"] or "", _said(name, backend["reason"])]
        for name, backend in facts["backends"].items()
    )
    print_table(["backend", "available", "version", "what it is, or why it is not there"], rows)
    print(
        "unrain run takes the fastest that is right: unrain run rainy.jpg -o dry.png; unrain models lists the networks."
    )


def _said(name: str, reason: str | None) -> str:
    return WHAT.get(name, "") if reason is None else reason


def _gpu_line(gpu: dict) -> str:
    return f"{gpu['name']}, {gpu['memory_mib']} MiB, compute capability {gpu['capability']}, driver {gpu['driver']}"
