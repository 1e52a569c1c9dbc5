"""Maps the top-level folders to one package; the native part is added in csrc/build.py when a compiler is there."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
FLOORS = {"unrain": "unrain", "unrain.engine": "engine", "unrain.kernels": "kernels", "unrain.export": "export"}


def packages() -> list[str]:
    """Every folder with an __init__.py, under the name it is installed as."""
    found = ["unrain"]
    for name, folder in list(FLOORS.items())[1:]:
        found += [name, *(f"{name}.{sub}" for sub in find_packages(str(ROOT / folder)))]
    return found


setup(
    packages=packages(),
    package_dir=FLOORS,
    package_data={
        "unrain": ["py.typed"],
        "unrain.engine": ["weights/*.safetensors", "weights/*.md", "demo/*"],
    },
)
