"""The Triton operations as a folder that the package `kernels` loads: `kernels.get_local_kernel(FOLDER)`.

Source alone, there is nothing to build: a variant for CUDA, and one for the CPU, where all is plain PyTorch.
Each is a copy of our own folder `kernels/` without what is compiled, and its operations have a namespace of their own,
so that it may be loaded beside this package, and beside another version of itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ...engine.errors import UnrainError
from ...engine.files import write
from ..targets import Options, Outcome

NAME = "unrain-triton"
VERSION = 1  # of the operations' arguments: it goes up when a call that worked would no longer do
VARIANTS = ("cuda", "cpu")
# What is compiled by us, and the commands that measure tilings.
LEFT_OUT = frozenset({"native.py", "compiled.py", "cuda.py", "packed.py", "tune.py"})
NAMESPACE = 'NAMESPACE = "unrain"'

CARD = """---
license: apache-2.0
library_name: kernels
tags: [kernels, triton, convlstm, deraining]
---

# {name}

The operations of unrain {version}: {ops}.
Every one runs on every machine, by Triton on a GPU where it has a kernel, else as plain PyTorch; gradients,
`torch.compile` and autocast included.

    from kernels import get_local_kernel
    ops = get_local_kernel("THIS FOLDER")
    h, c = ops.lstm_gates(pre, c)

Arguments and results are described in each operation's docstring.
"""


def to_hub_kernels(model: object, output: Path, options: Options) -> Outcome:
    """The folder, with a variant for each backend."""
    from ... import __version__, kernels

    if options.precision != "fp32":
        raise UnrainError(f"the operations take every precision as it comes: leave out {options.precision}")
    root = Path(kernels.__file__).parent
    sources = {
        path.relative_to(root): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.py"))
        if path.name not in LEFT_OUT
    }
    digest = hashlib.sha256("\0".join(f"{path}\0{text}" for path, text in sources.items()).encode()).hexdigest()[:10]
    for backend in VARIANTS:
        identity = f"unrain_triton_{backend}_{digest}"
        folder = output / "build" / f"torch-{backend}"
        for path, text in sources.items():
            write(folder / path, text.replace(NAMESPACE, f'NAMESPACE = "{identity}"'))
        metadata = {
            "id": identity,
            "name": NAME,
            "version": VERSION,
            "license": "apache-2.0",
            "python-depends": [],
            "backend": {"type": backend},
        }
        write(folder / "metadata.json", json.dumps(metadata, indent=1))
    ops = ", ".join(f"`{name}`" for name in kernels.registry.OPS)
    write(output / "README.md", CARD.format(name=NAME, version=__version__, ops=ops))
    made = [output / "build" / f"torch-{backend}" / "metadata.json" for backend in VARIANTS]
    notes = [f"{len(sources)} source files for each of {' and '.join(VARIANTS)}; nothing to build"]
    return Outcome([*made, output / "README.md"], notes, {"name": NAME, "digest": digest})
