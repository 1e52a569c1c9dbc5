"""Networks that are not ours, with no special word for them: `pytest benchmarks --benchmark-only -k strangers`.

Random weights; every way is held to the same fidelity as for our own networks.
"""

import pytest
from strangers import STRANGERS, stranger
from test_models import enter_as

NAMES = [f"{name} 256x256" for name in STRANGERS]
ROWS = (
    *("eager fp32", "channels-last fp32", "channels-last bf16", "fused fp32", "fused bf16"),
    *("compile fp32", "compile bf16", "openvino fp32", "openvino bf16"),
)


@pytest.mark.parametrize("contender", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_strangers(name, contender, compete, request):
    enter_as("strangers", stranger, name, contender, compete, request)
