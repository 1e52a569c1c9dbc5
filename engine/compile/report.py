"""What became of a model: which operations were fused, where, and what looked like one and was left alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from torch import fx


@dataclass(frozen=True)
class Entry:
    """One place of the model."""

    where: str  # path of the module, "" for the model itself
    line: str  # file and line
    what: str  # what it was recognised as
    op: str  # the operations of `unrain.kernels` that it became; "" where it was left alone
    reason: str = ""  # why it was left alone

    @property
    def fused(self) -> bool:
        return bool(self.op)

    def __str__(self) -> str:
        became = f"fused        {self.op}" if self.fused else f"left alone   {self.reason}"
        return f"{self.where or '(model)':32} {self.line:28} {self.what:24} {became}"


@dataclass
class Report:
    """Every place that was fused, or looked like one that could be, in the order of compilation. A graph that is
    compiled again, for other shapes or another mode, says the same again: it is listed once."""

    entries: list[Entry] = field(default_factory=list)
    graphs: int = 0

    @property
    def fused(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.fused]

    @property
    def left_alone(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.fused]

    def add(self, entry: Entry) -> None:
        if entry not in self.entries:
            self.entries.append(entry)

    def __str__(self) -> str:
        if not self.graphs:
            return "nothing is compiled yet: the first call of the model does it"
        return "\n".join(map(str, self.entries)) or "nothing here has a fused form"


def place_of(node: fx.Node) -> tuple[str, str]:
    """The module and the line that a node comes from."""
    return _module(node), _line(node)


def _module(node: fx.Node) -> str:
    """The innermost module, without torch's own: a loss or a cell, not the convolution in it."""
    path = ""
    for name, kind in (node.meta.get("nn_module_stack") or {}).values():
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if not kind.startswith("torch.nn.modules.conv"):
            path = name
    path = re.sub(r"^L\['self'\]\.?|^L\['[^']*'\]\.?", "", path)
    return re.sub(r"_modules\['([^']*)'\]", r"\1", path).replace("['", ".").replace("']", "").lstrip(".")


def _line(node: fx.Node) -> str:
    found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    if not found:
        return ""
    file, line = found[-1]
    return f"{Path(file).name}:{line}"
