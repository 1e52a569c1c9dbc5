"""Maps the top-level folders to one package, and builds the native part where a compiler is there (csrc/build.py)."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
FLOORS = {"unrain": "unrain", "unrain.engine": "engine", "unrain.kernels": "kernels", "unrain.export": "export"}

sys.path.insert(0, str(ROOT))
from csrc.build import BuildNative, Wheel, extensions  # noqa: E402  # the build backend does not look beside setup.py


def packages() -> list[str]:
    """Every folder with an __init__.py, under the name it is installed as."""
    found = ["unrain.csrc"]
    for name, folder in FLOORS.items():
        found += [name, *(f"{name}.{sub}" for sub in find_packages(str(ROOT / folder)))]
    return found


setup(
    packages=packages(),
    package_dir={**FLOORS, "unrain.csrc": "csrc"},
    package_data={
        "unrain": ["py.typed", "page/*"],
        # What the CUDA kernels are made of: CuPy compiles it on machines where there was no nvcc.
        "unrain.csrc": ["*.h", "flags.txt", "cuda/*.cuh", "pixel/*.h", "simd/scalar.h"],
        "unrain.engine": ["weights/*.safetensors", "weights/*.md", "pictures/*", "evaluation/*.npz"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
