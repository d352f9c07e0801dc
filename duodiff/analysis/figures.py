"""The plotted values of each figure, from records, small CSV files and sample stores.

`studies` maps an experiment to its title and paper_dataset; the study a file belongs to is read off its
path, results/{experiment}/train{train_seed}/...
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.tables import (
    cells,
    load_records,
    over_full,
    paper_table,
)
from duodiff.data.store import ImageStore, to_unit_range
from duodiff.paper import PAPER_IMAGES, PAPER_TITLES
from duodiff.running.files import read_json
from duodiff.schedules import noise_schedule
from duodiff.study.grid import SAMPLER_TITLES

FIGURE_2_TIMESTEPS = (50, 250, 500, 750, 999)
_FIGURE_2_IMAGES = 3
_FIGURE_2_SEED = 0
_CORRELATED = 256  # images the correlation of Figure 2 is over, at most
_GALLERY_IMAGES = 36


def _read(paths: list[Path], studies: dict) -> pd.DataFrame:
    """The CSV tables of several studies as one, with their title and train_seed."""
    tables = []
    for path in paths:
        experiment, seed = re.search(r"([^/]+)/train(\d+)/", Path(path).as_posix()).groups()
        table = pd.read_csv(path)
        tables.append(table.assign(title=_title(studies, experiment, seed), train_seed=int(seed)))
    return pd.concat(tables, ignore_index=True)


def _title(studies: dict, experiment: str, train_seed: str | int) -> str:
    title = studies[experiment]["title"]
    return title if int(train_seed) == 0 else f"{title}, training seed {train_seed}"


def exit_layer_lines(profiles: list[Path], studies: dict) -> pd.DataFrame:
    """Figure 1: the exit profiles of each study under DDPM at its first sampling seed."""
    lines = _read(profiles, studies)
    lines = lines[lines["sampler"] == "ddpm"]
    first = lines.groupby("title")["sample_seed"].transform("first")
    return lines[lines["sample_seed"] == first]


def training_lines(curves: list[Path], studies: dict) -> pd.DataFrame:
    """Loss curves of all trainings, with the model's role from its folder."""
    roles = [Path(path).parent.name for path in curves]
    tables = [
        _read([path], studies).assign(model=role) for path, role in zip(curves, roles, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def denoising_lines(losses: list[Path], studies: dict) -> pd.DataFrame:
    """Held-out losses over t of all studies."""
    return _read(losses, studies)


def extrapolation_points(curves: list[Path], studies: dict) -> pd.DataFrame:
    """Distance against the number of images, of the DuoDiff cells under DDPM at the first sampling seed."""
    found = _read(curves, studies)
    found = found[(found["sampler"] == "ddpm") & found["t_s"].notna()]
    first = found.groupby("title")["sample_seed"].transform("first")
    return found[found["sample_seed"] == first]


def noised_images(
    data: list[Path], studies: dict
) -> tuple[list[tuple[str, list[np.ndarray]]], pd.DataFrame]:
    """Figure 2: a panel (title, images) for each dataset, and how alike input and target are at each timestep.

    Images are float32 [1 + 2 x timesteps, C, H, W] in [-1, 1]: the clean held-out image x_0, then x_t and the
    noise in it, its target, at FIGURE_2_TIMESTEPS (Eq. 1). The correlation of x_t and the noise is over all pixels
    of the first n held-out images. `data` are packed datasets; where a network works on latents,
    this shows its images. Noise is numpy's Philox, seed 0.
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


def trade_off_points(records: list[Path], paper: Path, studies: dict) -> pd.DataFrame:
    """Points of Figure 4: our studies under DDPM, then the paper's published datasets.

    `inferred` marks a published point whose setting or exit layer is not in the paper (its certainty says so).
    """
    panels = []
    ours = cells(load_records(records), "ddpm")
    for (name, seed), study in ours.groupby(["experiment", "train_seed"]):
        title = f"{_title(studies, name, seed)} (ours, n = {study['n'].iloc[0]})"
        points = [_curve(study, "seconds", "adadiff")]
        if "seconds_interpolated" in study:
            # the thetas are named once, at their measured times
            points.append(
                _curve(study, "seconds_interpolated", "adadiff_interpolated").assign(label="")
            )
        table = pd.concat(points).drop_duplicates(["method", "t_s", "theta"])
        panels.append(table.assign(panel=title, metric=study["metric"].iloc[0], inferred=False))
    published = pd.read_csv(paper)
    sampler = "" if "sampler" not in published else f", {published['sampler'].iloc[0].upper()}"
    published = paper_table(published).rename(columns={"fid": "distance"})
    for dataset, points in published.groupby("dataset", sort=False):
        points = _curve(points, "seconds_per_image", "adadiff_interpolated")
        title = f"{PAPER_TITLES[dataset]}{sampler} (paper, n = {PAPER_IMAGES})"
        panels.append(points.assign(panel=title, metric="FID", inferred=_inferred(points)))
    columns = ["panel", "metric", "method", "label", "seconds", "distance", "spread", "inferred"]
    return pd.concat(panels, ignore_index=True).reindex(columns=columns)


def relative_points(
    records: list[Path], paper: Path, architectures: Path, studies: dict
) -> pd.DataFrame:
    """What compares across datasets: the distance over the full backbone's against the time saved and the share
    of blocks run, under DDPM.

    Columns: source, method (full, duodiff, shallow, adadiff), label (t_s or theta), relative_distance, time_saved
    (percent of the full backbone's; AdaDiff's interpolated, as the paper's), blocks_run (percent; AdaDiff alone), n
    and inferred. `architectures` is describe_architectures' JSON, which has the number of blocks.
    """
    published = paper_table(pd.read_csv(paper))
    networks = read_json(architectures)["paper"]
    depth = {name: found["full"]["architecture"]["depth"] for name, found in networks.items()}
    parts = [
        published.assign(
            source=published["dataset"].map(PAPER_TITLES) + " (paper, FID)",
            time_saved=100 * (1 - 1 / published["speedup"]),
            blocks_run=100 * published["mean_exit_layer"] / published["dataset"].map(depth),
            n=PAPER_IMAGES,
            inferred=_inferred(published),
        )
    ]
    ours = cells(load_records(records), "ddpm")
    for (name, seed), study in ours.groupby(["experiment", "train_seed"]):
        full = study[study["t_s"] == 0]["seconds"].iloc[0]
        seconds = study["seconds"]
        if "seconds_interpolated" in study:
            seconds = study["seconds_interpolated"].fillna(seconds)
        part = study.assign(
            relative_distance=over_full(study, "distance"), time_saved=100 * (1 - seconds / full)
        )
        if "mean_exit_layer" in study:
            share = study["mean_exit_layer"] / study["depth"].astype(float)
            part = part.assign(blocks_run=100 * share)
        metric = study["metric"].iloc[0]
        title = f"{_title(studies, name, seed)} (ours, {metric})"
        parts.append(part.assign(source=title, inferred=False))
    points = pd.concat(parts, ignore_index=True)
    points["label"] = points["t_s"].map("{:.0f}".format).where(points["t_s"].notna(), "")
    theta = points["theta"].notna()
    points.loc[theta, "label"] = points.loc[theta, "theta"].map("{:.3g}".format)
    columns = ["source", "method", "label", "relative_distance", "time_saved", "blocks_run"]
    return points.reindex(columns=[*columns, "n", "inferred"])


def _inferred(published: pd.DataFrame) -> pd.Series:
    """Whether a published row rests on an inferred, derived or unknown setting, by its certainty."""
    return published["certainty"].str.contains("inferred|derived|unknown", na=False)


def _curve(table: pd.DataFrame, seconds: str, adadiff: str) -> pd.DataFrame:
    """One panel's points: the full backbone, DuoDiff from t_s = 0 to T, and AdaDiff called `adadiff`."""
    switched, exited = table[table["t_s"].notna()], table[table["t_s"].isna()]
    parts = [
        switched[switched["t_s"] == 0].assign(method="full", label=""),
        switched.assign(method="duodiff", label=switched["t_s"].map("{:.0f}".format)),
        exited.assign(method=adadiff, label=exited["theta"].map("{:.3g}".format)),
    ]
    points = pd.concat(parts).assign(seconds=lambda t: t[seconds])
    return points[points["seconds"].notna()].replace({"label": {"nan": ""}})


def qualitative_panels(samples: list[Path], studies: dict) -> tuple[list[dict], pd.DataFrame]:
    """Figure 5: a panel for each study, and the table of what is shown.

    A panel has a `title`, the `labels` of its images (their class, or #index), and for "adadiff" (rising theta) and
    "duodiff" (rising t_s) a list of columns (name, uint8 images [n, C, H, W]). The images are the first global
    indices, whose noise and label all columns share.
    """
    stores = {}
    for store in sorted(map(ImageStore, samples), key=_setting):
        stores.setdefault(store.manifest["experiment"], []).append(store)
    count = 10 if len(stores) == 1 else 4
    panels, rows = [], []
    for experiment, mine in stores.items():
        labels = mine[0].labels[:count]
        panel = {
            "title": studies[experiment]["title"],
            "labels": [str(y) if y >= 0 else f"#{i}" for i, y in enumerate(labels)],
            "adadiff": [],
            "duodiff": [],
        }
        for store in mine:
            kind, value = _setting(store)
            name = f"{value:.3f}" if kind == "adadiff" else str(value)
            panel[kind].append((name, np.array(store.images[:count])))
            about = {"experiment": experiment, "method": store.manifest["method"]}
            about |= store.manifest["parameters"] | {"seed": store.manifest["seed"]}
            rows += [about | {"index": i, "label": int(y)} for i, y in enumerate(labels)]
        panels.append(panel)
    return panels, pd.DataFrame(rows)


def gallery_panels(
    samples: list[Path], data: Path, studies: dict
) -> tuple[str, list[tuple[str, np.ndarray]], pd.DataFrame]:
    """A gallery: its title, panels (name, uint8 images [36, C, H, W] or fewer), the table of what they show.

    Training images of the packed store `data` first, then every cell of one study at its first sampling seed:
    AdaDiff by theta and DuoDiff by t_s, the same global indices at the same place of every panel.
    """
    real = ImageStore(data)
    stores = [ImageStore(path) for path in samples]
    first = stores[0].manifest["seed"]  # as the grid lists them
    stores = [store for store in stores if store.manifest["seed"] == first]
    stores.sort(key=_setting)  # theta, t_s; sorting is stable
    stores.sort(key=lambda store: list(SAMPLER_TITLES).index(store.manifest["sampler"]["name"]))
    panels = [("Training images", real.split("train")[0][:_GALLERY_IMAGES])]
    panels += [(_panel_name(store), store.images[:_GALLERY_IMAGES]) for store in stores]
    table = pd.DataFrame(
        {"panel": title, "images": len(images), "seed": first, "images_sha256": digest}
        for (title, images), digest in zip(
            panels, [s.manifest["images_sha256"] for s in (real, *stores)], strict=True
        )
    )
    about = stores[0].manifest
    return _title(studies, about["experiment"], about["train_seed"]), panels, table


def _panel_name(store: ImageStore) -> str:
    kind, value = _setting(store)
    names = {
        "full": "full backbone",
        "shallow": "shallow backbone",
        "duodiff": "DuoDiff",
        "adadiff": "AdaDiff",
    }
    setting = f"$t_s$ = {value}" if kind == "duodiff" else f"θ = {value:.3f}"
    sampler = store.manifest["sampler"]
    method = names[store.manifest["method"]]
    return f"{SAMPLER_TITLES[sampler['name']]}-{sampler['steps']}, {method}, {setting}"


def _setting(store: ImageStore) -> tuple[str, float]:
    """ "adadiff" and theta, or "duodiff" and t_s."""
    parameters = store.manifest["parameters"]
    if "t_s" in parameters:
        return ("duodiff", parameters["t_s"])
    return ("adadiff", parameters["theta"])
