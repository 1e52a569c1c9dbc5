"""The program of a network: recorded once and kept in the cache folder, so that the next start need not record it."""

from __future__ import annotations

import hashlib
import inspect
import logging
import marshal
import os
from contextlib import suppress
from functools import cache as cached
from pathlib import Path
from types import FunctionType

import torch
from torch import nn

from .... import __version__
from ....kernels.kept import replacing
from ...errors import UnrainError
from .. import cache
from ..identity import model_hash

log = logging.getLogger("unrain.runtime")

_MOST_BYTES = 512 << 20  # of all that are kept
_ENGINE = Path(__file__).resolve().parents[2]
_OURS = ("program", "models", "nn")  # what decides how a network of ours is recorded


def program_of(model: nn.Module) -> bytes:
    """The file of its program; raises what a user can read where it has none."""
    key = cache.key_of(model=model_hash(model), written=_written(model), version=__version__, torch=torch.__version__)
    path = cache.folder() / f"program-{key}.unrain"
    with suppress(OSError):
        data = path.read_bytes()
        if _is_whole(data):
            os.utime(path)  # the latest used ones stay
            return data
    data = _recorded(model)
    _keep(path, data)
    return data


def _recorded(model: nn.Module) -> bytes:
    from ...program import Refused, record

    log.debug("recording this network: once, for a few seconds")
    try:
        return record(model).data
    except (UnrainError, Refused):
        raise
    except Exception as error:  # a network of anybody's: what it raises while it is recorded is its own
        reason = " ".join(str(error).split())[:200]
        raise UnrainError(f"it cannot be recorded: {type(error).__name__}: {reason}") from error


def _is_whole(data: bytes) -> bool:
    from ...program.file import HEADER_BYTES

    return len(data) > HEADER_BYTES and data[16:48] == hashlib.sha256(data[HEADER_BYTES:]).digest()


def _keep(path: Path, data: bytes) -> None:
    """Whole or not at all; a folder that cannot be written to costs the next start a recording."""
    with suppress(OSError):
        with replacing(path) as part:
            part.write_bytes(data)
        _drop_oldest(path.parent)


def _drop_oldest(folder: Path) -> None:
    kept = sorted(((each.stat(), each) for each in folder.glob("program-*.unrain")), key=lambda each: -each[0].st_mtime)
    total = 0
    for number, (what, each) in enumerate(kept):
        total += what.st_size
        if number and total > _MOST_BYTES:
            each.unlink()


def _written(model: nn.Module) -> str:
    """What was written in source files and in plain attributes, beside the weights."""
    digest = hashlib.sha256(_ours().encode())
    files: set[str] = set()
    for name, module in model.named_modules():
        kind = type(module)
        plain = {key: value for key, value in sorted(vars(module).items()) if isinstance(value, _PLAIN)}
        digest.update(repr((name, kind.__module__, kind.__qualname__, module.extra_repr(), plain)).encode())
        for each in kind.__mro__:
            if each.__module__.partition(".")[0] in (*_KNOWN, __name__.partition(".")[0]):
                continue
            for function in vars(each).values():  # of a class in a notebook, too, which has no file
                if isinstance(function, FunctionType):
                    digest.update(marshal.dumps(function.__code__))
            with suppress(OSError, TypeError):
                files.add(inspect.getfile(each))
    for file in sorted(files):
        with suppress(OSError):
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


_KNOWN = ("torch", "builtins", "typing", "abc")
_PLAIN = (int, float, str, bool, tuple, type(None))


@cached
def _ours() -> str:
    digest = hashlib.sha256()
    for folder in _OURS:
        for file in sorted((_ENGINE / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
