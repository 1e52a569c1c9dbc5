"""A network's output back to an 8-bit frame in plain PyTorch: residual, scale, clamp, rounding, crop, channel order."""

import torch

Tensor = torch.Tensor
_ROUND = {"nearest": torch.round, "truncate": torch.trunc}
ROUNDINGS = tuple(_ROUND)


def forward(x: Tensor, residual: Tensor | None, height: int, width: int, rounding: str, bgr: bool) -> Tensor:
    """x and residual [B,3,H,W] -> uint8 [B,height,width,3], the top left corner."""
    image = x[..., :height, :width].to(torch.float32)
    if residual is not None:
        image = image + residual[..., :height, :width].to(torch.float32)
    image = _ROUND[rounding]((image * 255).nan_to_num(0.0, 255.0, 0.0).clamp(0, 255)).to(torch.uint8)
    return (image.flip(1) if bgr else image).permute(0, 2, 3, 1).contiguous()
