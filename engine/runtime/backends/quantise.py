"""Post-training quantisation to int8 for the CPU, by NNCF on an OpenVINO network."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

from torch import Tensor


def quantised(network: Any, pictures: list[Tensor]) -> Any:
    """The network with 8-bit convolutions, their ranges learnt from `pictures` [1,3,H,W]."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function sets the handlers of others, too
    samples = nncf.Dataset(pictures, lambda picture: {network.inputs[0].any_name: picture.numpy()})
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            network, samples, preset=nncf.QuantizationPreset.MIXED, subset_size=len(pictures), fast_bias_correction=True
        )
