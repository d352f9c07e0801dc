"""What a training looks like while it runs: TensorBoard events, and one PNG that is replaced, in a folder.

Both are for watching. No result depends on them, so rules do not declare them, they are kept when a job
fails, and editing this module reruns no training (`duodiff.identity` leaves it out).
"""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor, nn

from duodiff import noise, samplers
from duodiff.backbones import single
from duodiff.data.pictures import grid
from duodiff.running.files import atomic
from duodiff.schedules import noise_schedule

_SHARE = 0.01  # of the time of a training that pictures may take; the first and the last are always drawn
_IMAGES, _COLUMNS = 16, 4
_SAMPLING_STEPS = 20

Picture = Callable[[Any], np.ndarray]
"""Makes a picture, uint8 [H, W, 3], of the averaged model."""


class Monitor:
    """Called with the loss curve so far and the averaged model, it writes both to `folder`.

    The events go to a new file in each process: a training that is continued goes on in the same folder, one
    that starts anew removes what an earlier one left. progress.png has the curve up to `steps` and, beside
    it and in the events, what `picture` makes of the model.
    """

    def __init__(self, folder: Path, steps: int, picture: Picture | None = None):
        self.folder, self.steps, self.picture = folder, steps, picture
        self.events = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self.next_picture = 0.0

    def __call__(self, curve: list[dict], average: nn.Module) -> None:
        if not self.events.exists():
            self._start(curve)
        start = time.monotonic()
        drawn = start >= self.next_picture or curve[-1]["step"] == self.steps
        image = self.picture(average) if drawn and self.picture else None
        self._append(_summary(curve[-1], image))
        if drawn:
            self._draw(curve, image)
            now = time.monotonic()
            self.next_picture = now + (now - start) / _SHARE

    def _start(self, curve: list[dict]) -> None:
        """A new event file; entries from this step on that an interrupted process wrote count no more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(curve) == 1:
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
        start = SessionLog(status=SessionLog.START)
        self._append(
            {"file_version": "brain.Event:2"}, {"step": curve[-1]["step"], "session_log": start}
        )

    def _append(self, *events: dict) -> None:
        with open(self.events, "ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(Event(wall_time=time.time(), **event).SerializeToString())

    def _draw(self, curve: list[dict], image: np.ndarray | None) -> None:
        figure = Figure(figsize=(10 if image is not None else 6, 4), dpi=100)
        axes = figure.subplots(1, 1 if image is None else 2, squeeze=False)[0]
        steps = [entry["step"] for entry in curve]
        for name, style in (("train", "C0.--"), ("held_out", "C1.-")):
            losses = [entry[f"{name}_loss"] for entry in curve]
            axes[0].plot(steps, losses, style, label=name.replace("_", "-"))
        axes[0].set(xlabel="step", ylabel="loss", xlim=(0, self.steps), yscale="log")
        loss = f"held-out loss {losses[-1]:.4g} at step {steps[-1]}"
        axes[0].set_title(f"{self.folder}\n{loss}", parse_math=False)
        axes[0].legend()
        if image is not None:
            axes[1].imshow(image)
            axes[1].axis("off")
        figure.tight_layout()
        with atomic(self.folder / "progress.png") as temporary:
            figure.savefig(temporary, format="png")


def _summary(entry: dict, image: np.ndarray | None) -> dict:
    """The event of one entry of a loss curve."""
    tags = {"train_loss": "loss/train", "held_out_loss": "loss/held_out", "lr": "learning_rate"}
    values = [Summary.Value(tag=tag, simple_value=entry[key]) for key, tag in tags.items()]
    if image is not None:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="png")
        height, width, _ = image.shape
        encoded = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
        )
        values.append(Summary.Value(tag="images", image=encoded))
    return {"step": entry["step"], "summary": Summary(value=values)}


def samples_of(
    shape: tuple[int, int, int], classes: int, schedule: str, device: str | torch.device
) -> Picture:
    """Pictures of 16 images that a backbone samples in 20 steps of DDIM, always from the same noise.

    `classes` are those to draw labels from, < 1 for none. torch's generators are left alone.
    """
    steps = samplers.ddim(noise_schedule(schedule), _SAMPLING_STEPS)
    y = noise.balanced_labels(0, _IMAGES, classes) if classes > 0 else None

    def picture(average: nn.Module) -> np.ndarray:
        x = samplers.sample(single(average), steps, shape, 0, _IMAGES, seed=0, y=y, device=device)
        return grid(samplers.to_uint8(x).cpu().numpy(), _COLUMNS)

    return picture


def reconstructions_of(images: Tensor) -> Picture:
    """Pictures of the first 8 of `images` (float32 [N, C, H, W] in [-1, 1]) above an autoencoder's
    reconstructions of them, from the mean of their latents.
    """
    images = images[: _IMAGES // 2]

    @torch.inference_mode()
    def picture(net: Any) -> np.ndarray:
        found = net.decode(net.encode(images).latent_dist.mode()).sample
        rows = samplers.to_uint8(torch.cat([images, found]))
        return grid(rows.cpu().numpy(), _IMAGES // 2)

    return picture
