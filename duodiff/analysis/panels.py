"""The images that Figures 2 and 5 and the galleries show, from packed datasets and sample stores (no torch)."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from duodiff.analysis.figures import study_title
from duodiff.data.store import ImageStore, to_unit_range
from duodiff.schedules import noise_schedule
from duodiff.study.grid import samplers

FIGURE_2_TIMESTEPS = (50, 250, 500, 750, 999)
_FIGURE_2_IMAGES = 3
_FIGURE_2_SEED = 0
_CORRELATED = 256  # images the correlation of Figure 2 is over, at most
_GALLERY_IMAGES = 36
_NAME = 12  # letters of a class's name, at most
_METHOD_TITLES = {
    "full": "full backbone",
    "shallow": "shallow backbone",
    "duodiff": "DuoDiff",
    "adadiff": "AdaDiff",
    "schedule": "schedule",
}


def noised_images(
    data: list[Path], studies: dict
) -> tuple[list[tuple[str, list[np.ndarray]]], pd.DataFrame]:
    """Figure 2: a panel (title, images) for each dataset, and how alike input and target are at each timestep.

    Images are float32 [1 + 2 x timesteps, C, H, W] in [-1, 1]: the clean held-out image x_0, then for each of
    FIGURE_2_TIMESTEPS x_t and the noise in it, the target (Eq. 1). The correlation of x_t and the noise is over all
    pixels of the first n held-out images. `data` are packed datasets; where a network works on latents, the figure
    shows the images. `studies` maps an experiment to its title, dataset and schedule. Noise is numpy's Philox, seed 0.
    """
    panels, rows = [], []
    for path in data:
        store = ImageStore(path)
        study = next(s for s in studies.values() if s["dataset"] == store.folder.name)
        alphas_cumprod = noise_schedule(study["schedule"]).alphas_cumprod
        x_0 = to_unit_range(store.split("held_out")[0][:_CORRELATED])
        noise = np.random.Generator(np.random.Philox(_FIGURE_2_SEED))
        shown = [[image] for image in x_0[:_FIGURE_2_IMAGES]]
        for t in FIGURE_2_TIMESTEPS:
            eps = noise.standard_normal(x_0.shape, dtype=np.float32)
            x_t = alphas_cumprod[t] ** 0.5 * x_0 + (1 - alphas_cumprod[t]) ** 0.5 * eps
            for image, *pair in zip(shown, x_t, eps, strict=False):
                image += pair
            rows.append(
                {
                    "dataset": store.folder.name,
                    "title": study["title"],
                    "schedule": study["schedule"],
                    "t": t,
                    "alpha_bar": alphas_cumprod[t],
                    "correlation": np.corrcoef(x_t.ravel(), eps.ravel())[0, 1],
                    "n": len(x_0),
                    "seed": _FIGURE_2_SEED,
                    "images_shown": len(shown),
                }
            )
        panels.append((study["title"], [np.stack(image) for image in shown]))
    return panels, pd.DataFrame(rows)


def qualitative_panels(
    samples: list[Path], data: list[Path], studies: dict
) -> tuple[list[dict], pd.DataFrame]:
    """Figure 5: a panel for each study, and the table of the images shown.

    A panel has a `title`, the `labels` of its images (the name of their class in the packed dataset of `data`, or
    #index), and for "adadiff" (rising theta), "duodiff" (rising t_s) and "schedule" (by name) a list of columns
    (name, uint8 images [n, C, H, W]). The images are the first global indices, whose noise and label all columns share.
    """
    stores_of: dict[str, list[ImageStore]] = {}
    for store in sorted(map(ImageStore, samples), key=_setting):
        stores_of.setdefault(store.manifest["experiment"], []).append(store)
    count = 10 if len(stores_of) == 1 else 4
    classes = {store.folder.name: store.manifest["class_names"] for store in map(ImageStore, data)}
    panels, rows = [], []
    for experiment, stores in stores_of.items():
        labels = stores[0].labels[:count]
        panel = {
            "title": studies[experiment]["title"],
            "labels": [
                _class_name(classes[studies[experiment]["dataset"]], y) if y >= 0 else f"#{i}"
                for i, y in enumerate(labels)
            ],
            "adadiff": [],
            "duodiff": [],
            "schedule": [],
        }
        for store in stores:
            kind, value = _setting(store)
            name = f"{value:.3f}" if kind == "adadiff" else str(value)
            panel[kind].append((name, np.array(store.images[:count])))
            about = {"experiment": experiment, "method": store.manifest["method"]}
            about |= store.manifest["parameters"] | {"seed": store.manifest["seed"]}
            rows += [about | {"index": i, "label": int(y)} for i, y in enumerate(labels)]
        panels.append(panel)
    return panels, pd.DataFrame(rows)


def _class_name(names: list[str], label: int) -> str:
    """The name of a class, its first twelve letters, or its number where the dataset names none."""
    name = names[label] if label < len(names) else str(label)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def gallery_panels(
    samples: list[Path], data: Path, studies: dict
) -> tuple[str, list[tuple[str, np.ndarray]], pd.DataFrame]:
    """A gallery: its title, panels (name, uint8 images [36, C, H, W] or fewer), and the table of the images shown.

    Training images of the packed store `data` come first, then every cell of one study at its first sampling seed:
    AdaDiff by theta, DuoDiff by t_s, and named schedules. The same place of every panel shows the same global index.
    """
    real = ImageStore(data)
    stores = [ImageStore(path) for path in samples]
    first = stores[0].manifest["seed"]  # as the grid lists them
    stores = [store for store in stores if store.manifest["seed"] == first]
    stores.sort(key=_setting)  # theta, t_s; sorting is stable
    stores.sort(key=lambda store: list(samplers()).index(store.manifest["sampler"]["name"]))
    panels = [("Training images", real.split("train")[0][:_GALLERY_IMAGES])]
    panels += [(_panel_name(store), store.images[:_GALLERY_IMAGES]) for store in stores]
    table = pd.DataFrame(
        {"panel": title, "images": len(images), "seed": first, "images_sha256": digest}
        for (title, images), digest in zip(
            panels, [s.manifest["images_sha256"] for s in (real, *stores)], strict=True
        )
    )
    about = stores[0].manifest
    return study_title(studies, about["experiment"], about["train_seed"]), panels, table


def _panel_name(store: ImageStore) -> str:
    kind, value = _setting(store)
    sampler, method = store.manifest["sampler"], store.manifest["method"]
    steps = len(store.manifest["parameters"].get("timesteps", [])) or sampler["steps"]
    settings = {
        "duodiff": f", $t_s$ = {value}",
        "adadiff": f", θ = {value:.3f}" if kind == "adadiff" else "",
        "schedule": f" {value}",
    }
    name = f"{_METHOD_TITLES[method]}{settings.get(method, '')}"
    return f"{samplers()[sampler['name']]['title']}-{steps}, {name}"


def _setting(store: ImageStore) -> tuple[str, Any]:
    """ "adadiff" and theta, "duodiff" and t_s, or "schedule" and its name."""
    parameters = store.manifest["parameters"]
    if "schedule" in parameters:
        return ("schedule", parameters["schedule"])
    if "t_s" in parameters:
        return ("duodiff", parameters["t_s"])
    return ("adadiff", parameters["theta"])
