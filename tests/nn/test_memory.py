"""MemoryBank: reading in both shapes, and updates that change nothing until they are stored."""

import pytest
import torch

from unrain import MemoryBank
from unrain.kernels import memory_read, memory_update


def test_reads_pictures_as_rows():
    bank, query = MemoryBank(5, 8), torch.randn(2, 8, 4, 3)
    rows = query.permute(0, 2, 3, 1).reshape(-1, 8)
    read = bank(query)
    assert read.shape == query.shape
    torch.testing.assert_close(read.permute(0, 2, 3, 1).reshape(-1, 8), memory_read(rows, bank.items))
    torch.testing.assert_close(bank(rows), memory_read(rows, bank.items))
    assert torch.equal(bank.read(query, bank.items[:2]), bank.read(query, bank.items[:2].clone()))


def test_weights_sum_to_one_over_the_items():
    bank, query = MemoryBank(5, 8), torch.randn(2, 8, 4, 3)
    weights = bank.weights(query)
    assert weights.shape == (2, 5, 4, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 3))
    torch.testing.assert_close(torch.einsum("bmhw,mc->bchw", weights, bank.items), bank(query))


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_update_is_explicit(rule):
    bank, query = MemoryBank(5, 8, rule=rule), torch.randn(2, 8, 4, 3)
    before = bank.items.clone()
    new = bank.update(query)
    assert torch.equal(bank.items, before)
    torch.testing.assert_close(new, memory_update(query.permute(0, 2, 3, 1).reshape(-1, 8), before, rule=rule))
    torch.testing.assert_close(new.norm(dim=1), torch.ones(5))
    bank.items = new
    assert torch.equal(bank.state_dict()["items"], new) and not list(bank.parameters())
    torch.testing.assert_close(bank.update(query, before), new)


def test_gradients_flow_to_query_and_items():
    bank, query = MemoryBank(5, 8), torch.randn(1, 8, 4, 3, requires_grad=True)
    items = bank.items.clone().requires_grad_()
    bank.read(query, bank.update(query, items)).square().sum().backward()
    assert query.grad.abs().sum() > 0 and items.grad.abs().sum() > 0


def test_items_start_at_unit_length():
    torch.testing.assert_close(MemoryBank(20, 64).items.norm(dim=1), torch.ones(20))


def test_wrong_shape():
    with pytest.raises(ValueError, match="query must be"):
        MemoryBank(5, 8)(torch.zeros(8))
    with pytest.raises(ValueError, match="items must have 4 columns"):
        MemoryBank(5, 8)(torch.zeros(1, 4, 2, 2))
