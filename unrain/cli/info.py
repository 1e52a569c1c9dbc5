"""`unrain info`: what this machine and this installation have, and why the rest is missing."""

from typing import Annotated

import typer

from ..engine.console import print_json, print_table


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Show versions, processor, GPUs, and every backend with the reason where one is not available."""
    from ..engine.info import info

    facts = info()
    if as_json:
        print_json(facts)
        return
    versions = {name: version for name, version in facts["versions"].items() if version}
    print("versions:", ", ".join(f"{name} {version}" for name, version in versions.items()))
    cpu = facts["cpu"]
    print(f"processor: {cpu['name']}, {cpu['cores_usable']} of {cpu['cores']} cores, torch uses {cpu['capability']}")
    print("features:", " ".join(cpu["features"]) or "unknown")
    for gpu in facts["gpus"] or ["none"]:
        print("gpu:", gpu if isinstance(gpu, str) else _gpu_line(gpu))
    rows = (
        [name, "yes" if backend["available"] else "no", backend["version"] or "", backend["reason"] or ""]
        for name, backend in facts["backends"].items()
    )
    print_table(["backend", "available", "version", "why not, or what for"], rows)


def _gpu_line(gpu: dict) -> str:
    return f"{gpu['name']}, {gpu['memory_mib']} MiB, compute capability {gpu['capability']}, driver {gpu['driver']}"
