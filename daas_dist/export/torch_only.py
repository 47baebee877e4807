"""What an exported network needs beside itself, with torch alone; copied into network.py."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names."""


def read_safetensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file: 8 bytes of length, a JSON header, then the numbers."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            numbers = bytearray(data[start + first : start + last])
            tensor = torch.frombuffer(numbers, dtype=DTYPES[entry["dtype"]])
            tensors[name] = tensor.reshape(entry["shape"])
    return tensors


def normalise(images_u8: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [N, C, H, W] to float32 (image / 255 - mean) / std, with a mean and a std a channel."""
    mean_C, std_C = (torch.tensor(numbers, device=images_u8.device) for numbers in (mean, std))
    return (images_u8.float() / 255 - mean_C[:, None, None]) / std_C[:, None, None]
