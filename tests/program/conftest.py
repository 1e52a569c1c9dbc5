"""Small networks, recorded; and whether a program computes what its network does."""

import collections

import pytest
import torch
from torch import Tensor, nn

from unrain.engine.program.interpret import Interpreter
from unrain.engine.program.lower import lowered
from unrain.engine.program.record import recorded


class Called(nn.Module):
    """A function as a network; its weights are tensors that it sees."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Small:
    """A function of a picture as a run, before and after some rules."""

    def __init__(self, function, channels: int = 3) -> None:
        self.function, self.channels = function, channels
        self.found = recorded(Called(function), channels)
        self.run = self.found.runs[0]

    def after(self, *rules) -> "Small":
        for rule in rules:
            self.run = rule(self.run)
        return self

    @property
    def ops(self) -> list[str]:
        return [node.op for node in self.run.nodes]

    def the(self, op: str):
        [found] = [node for node in self.run.nodes if node.op == op]
        return found

    def is_right(self) -> bool:
        """Whether the program of the run as it stands now computes the function, in double."""
        program = lowered([self.run], self.found.multiple, self.found.padding, {})
        x = torch.rand(2, self.channels, 32, 24, dtype=torch.float64)
        computed = Interpreter(program, torch.float64).marks(x)[-1][0].double()
        return bool(torch.allclose(computed, self.function(x), rtol=1e-5, atol=1e-6))


@pytest.fixture
def small():
    return Small


@pytest.fixture
def counted():
    """How many instructions of each kind a run of a program has."""
    return lambda run: dict(collections.Counter(each.op for each in run.instructions))
