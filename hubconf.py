"""torch.hub: `torch.hub.load(REPOSITORY, "srn")`, with `source="local"` for a clone; an entry for every network.

It gives what `unrain.load` gives: the network as plain PyTorch with its shipped weights, [B, 3, H, W] in [0, 1] to the
same. Where the package is not installed, the clone itself serves.
"""

# Modules alone, and private names: every function that can be seen here is an entry.
import importlib.util as _finding
import pathlib as _pathlib
import sys as _sys

dependencies = ["torch", "numpy", "safetensors"]

_ROOT = _pathlib.Path(__file__).resolve().parent
_FLOORS = {"unrain": "unrain", "unrain.engine": "engine", "unrain.kernels": "kernels", "unrain.export": "export"}


def _is_installed():
    # The clone's own folder `unrain` is on the path, too: it is no package without its floors.
    try:
        return _finding.find_spec("unrain.engine") is not None
    except ModuleNotFoundError:
        return False


def _take_from_clone():
    """The packages under the names that an install gives them (setup.py has the same map)."""
    for name, folder in _FLOORS.items():
        place = _ROOT / folder
        spec = _finding.spec_from_file_location(name, place / "__init__.py", submodule_search_locations=[str(place)])
        _sys.modules[name] = module = _finding.module_from_spec(spec)
        spec.loader.exec_module(module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(_sys.modules[parent], child, module)


if not _is_installed():
    _take_from_clone()

import unrain.engine.models as _models  # noqa: E402  # only now is it there


def _entry(name):
    def make(pretrained=None, **overrides):
        shipped = (_models.WEIGHTS / f"{name}.safetensors").is_file()
        if overrides and pretrained:
            raise ValueError(f"the weights of {name} are for its own configuration: leave out {', '.join(overrides)}")
        if pretrained or (pretrained is None and shipped and not overrides):
            return _models.load(name)
        return _models.build(name, **overrides).eval()

    make.__name__ = name.replace("-", "_")
    about = _models.CATALOG[name].summary
    make.__doc__ = f"{about}. pretrained=False: random weights, and fields of its configuration by name."
    return make


for _name in _models.CATALOG:
    globals()[_name] = _entry(_name)
