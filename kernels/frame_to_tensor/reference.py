"""A camera's frame to a network's input in plain PyTorch: order of channels, scale to [0, 1], reflect padding."""

import torch

Tensor = torch.Tensor

# Luma weights (Kr, Kb) of the two standards; chroma follows from them.
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
FORMATS = ("rgb", "bgr", *(f"nv12-{standard}{depth}" for standard in LUMA for depth in ("", "-full")))


def forward(frame: Tensor, format: str, multiple: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """frame uint8 [B,H,W,3], or [B,3H/2,W] for NV12 -> [B,3,H',W'] with H' and W' the next multiples."""
    if format in ("rgb", "bgr"):
        image = frame.permute(0, 3, 1, 2)
        image = (image.flip(1) if format == "bgr" else image).to(torch.float32) / 255
    else:
        image = _from_nv12(frame, format)
    rows, columns = (_reflected(side, -(-side // multiple) * multiple, frame.device) for side in image.shape[2:])
    image = image.index_select(2, rows).index_select(3, columns).to(dtype)
    return image.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _from_nv12(frame: Tensor, format: str) -> Tensor:
    """One luma plane, then a plane of half the height with U and V side by side, each for 2 x 2 pixels."""
    kr, kb = LUMA[format.split("-")[1]]
    full = format.endswith("-full")
    batch, rows, width = frame.shape
    height = rows // 3 * 2
    luma = frame[:, :height].to(torch.float32)
    chroma = frame[:, height:].reshape(batch, height // 2, width // 2, 2).to(torch.float32) - 128
    chroma = chroma.repeat_interleave(2, 1).repeat_interleave(2, 2)
    luma = luma / 255 if full else (luma - 16) / 219
    u, v = (chroma / (255 if full else 224)).unbind(-1)
    red = luma + 2 * (1 - kr) * v
    blue = luma + 2 * (1 - kb) * u
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return torch.stack([red, green, blue], 1).clamp(0, 1)


def _reflected(side: int, padded: int, device: torch.device) -> Tensor:
    """0, 1, ..., side-1, side-2, ..., 1, 0, 1, ... as many as `padded`."""
    period = max(2 * side - 2, 1)
    position = torch.arange(padded, device=device).remainder(period)
    return torch.minimum(position, period - position)
