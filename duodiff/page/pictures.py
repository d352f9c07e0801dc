"""Images and files within a page: one picture a cell, as data of the page itself (no torch)."""

import base64
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from duodiff.analysis.measured import by_kind, words
from duodiff.data.pictures import pixels_last
from duodiff.data.store import ImageStore
from duodiff.settings import Setting

_COLUMNS = 10
_SMALL = 32  # pixels; images up to this side are shown pixel by pixel, and more of them
_LARGEST = 64  # pixels that a larger image is reduced to


@dataclass(frozen=True)
class Cell:
    """The images of one setting as one picture, whose places share noise and label over all cells of a study."""

    id: str
    setting: Setting
    theta: float | None
    steps: int
    fewer: bool
    count: int
    side: int
    source: str

    @property
    def small(self) -> bool:
        """Whether its images are shown pixel by pixel."""
        return self.side <= _SMALL

    @property
    def short(self) -> str:
        """Its value: t_s, or theta, and its number of steps where it is fewer."""
        if self.fewer:
            return f"{self.steps} steps" + (f", t_s {self.setting.t_s}" if self.setting.t_s else "")
        return self.setting.spelled if self.theta is None else f"{self.theta:.3f}"

    @property
    def words(self) -> str:
        """Its setting in words."""
        return words(self.setting, self.theta, self.steps if self.fewer else None)


@dataclass(frozen=True)
class Group:
    """Cells that one slider goes through, from the one at `start`; `parameter` names what it moves."""

    id: str
    title: str
    parameter: str
    cells: list[Cell]

    @property
    def start(self) -> int:
        """The place of the cell shown first."""
        return len(self.cells) // 2


def groups(cells: list[Cell]) -> list[Group]:
    """The sliders of a gallery: over t_s, over theta, over named schedules, over fewer steps."""
    own = [cell for cell in cells if not cell.fewer]
    found = [
        Group("t_s", "DuoDiff", "t_s = ", _of("t_s", own)),
        Group("theta", "AdaDiff", "θ = ", _of("theta", own)),
        Group("schedule", "Schedules with a name", "schedule ", _of("schedule", own)),
        Group("fewer", "Fewer steps", "with ", [cell for cell in cells if cell.fewer]),
    ]
    return [group for group in found if group.cells]


def _of(parameter: str, cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.setting.parameter == parameter]


def real(data: Path) -> tuple[str, bool, int]:
    """Training images of a packed store as one picture: its URL, whether they are small, and their number."""
    store = ImageStore(data)
    side = max(store.shape[1:])
    shown = store.split("train")[0][: _shown(side)]
    return picture(shown), side <= _SMALL, len(shown)


def _shown(side: int) -> int:
    """How many images of this side a picture has."""
    return _COLUMNS * (4 if side <= _SMALL else 2)


def cells_of(samples: list[Path]) -> dict[str, list[Cell]]:
    """The cells of each experiment, by rising t_s, by rising theta, by name, then the same with fewer steps."""
    found: dict[str, list[ImageStore]] = {}
    for store in map(ImageStore, samples):
        found.setdefault(store.manifest["experiment"], []).append(store)
    return {name: _cells(stores) for name, stores in found.items()}


def _cells(stores: list[ImageStore]) -> list[Cell]:
    most = max(store.manifest["sampler"]["steps"] for store in stores)
    cells = [_cell(store, most) for store in stores]
    return sorted(cells, key=lambda c: (-c.steps, *by_kind(c.setting)))


def _cell(store: ImageStore, most: int) -> Cell:
    manifest = store.manifest
    setting, steps = Setting.of_record(manifest["parameters"]), manifest["sampler"]["steps"]
    side = max(store.shape[1:])
    shown = store.images[: _shown(side)]
    return Cell(
        id=f"{setting}, {steps} steps" if steps < most else str(setting),
        setting=setting,
        theta=manifest["parameters"].get("theta"),
        steps=steps,
        fewer=steps < most,
        count=len(shown),
        side=side,
        source=picture(shown),
    )


def picture(images: np.ndarray) -> str:
    """The images, uint8 [N, C, H, W], ten in a row with a clear line between, as one picture in a URL of its own.

    Large images are reduced, and kept with losses.
    """
    tiles = pixels_last(np.asarray(images))
    small = max(tiles.shape[1:3]) <= _SMALL
    if not small:
        tiles = np.stack([_reduced(tile) for tile in tiles])
    count, height, width, _ = tiles.shape
    rows, gap = -(-count // _COLUMNS), 1 if small else 3
    joined = np.zeros((rows * (height + gap), _COLUMNS * (width + gap), 4), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // _COLUMNS * (height + gap), i % _COLUMNS * (width + gap)
        joined[y : y + height, x : x + width, :3] = tile
        joined[y : y + height, x : x + width, 3] = 255
    kind, options = ("png", {"optimize": True}) if small else ("webp", {"quality": 85})
    written = io.BytesIO()
    Image.fromarray(joined[:-gap, :-gap]).save(written, format=kind, **options)
    return url(written.getvalue(), f"image/{kind}")


def _reduced(tile: np.ndarray) -> np.ndarray:
    shown = Image.fromarray(tile)
    shown.thumbnail((_LARGEST, _LARGEST))
    return np.asarray(shown)


def url(data: bytes, kind: str) -> str:
    """Data as a URL, so that a page holds it itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def packed(text: str) -> str:
    """A text as a compressed file to download; the same text gives the same bytes."""
    return url(gzip.compress(text.encode("utf-8"), mtime=0), "application/gzip")
