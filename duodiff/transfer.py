"""Moving data from the host to a device without waiting."""

import numpy as np
import torch
from torch import Tensor


def moved(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on the device. From the host to a GPU it goes over pinned memory, so that the host does not wait."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def sent(array: np.ndarray, device: str | torch.device) -> Tensor:
    """An array, which may be a memory map, as a tensor on the device: `moved`."""
    return moved(torch.from_numpy(np.array(array)), device)
