"""The plotted values of each figure, from records, small CSV files and sample stores.

`studies` maps an experiment to its title and paper_dataset; the study a file belongs to is read off its
path, results/{experiment}/train{train_seed}/...
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.tables import PAPER_TITLES, cells, load_records, paper_table
from duodiff.data.store import ImageStore

_PAPER_FIGURE_4 = ("imagenet64", "imagenet256")
_FIGURE_5_IMAGES = 10
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


def trade_off_points(records: list[Path], paper: Path, studies: dict) -> pd.DataFrame:
    """Points of Figure 4: our studies under DDPM, then the two panels the paper published."""
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
        panels.append(table.assign(panel=title, metric=study["metric"].iloc[0]))
    published = paper_table(pd.read_csv(paper)).rename(columns={"fid": "distance"})
    for dataset in _PAPER_FIGURE_4:
        points = published[published["dataset"] == dataset]
        points = _curve(points, "seconds_per_image", "adadiff_interpolated")
        title = f"{PAPER_TITLES[dataset]} (published, n = 5120)"
        panels.append(points.assign(panel=title, metric="FID"))
    columns = ["panel", "metric", "method", "label", "seconds", "distance", "spread"]
    return pd.concat(panels, ignore_index=True).reindex(columns=columns)


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


def qualitative_rows(
    samples: list[Path], studies: dict
) -> tuple[list[tuple[str, np.ndarray]], list[str], pd.DataFrame]:
    """Figure 5: rows (name, images), column names, and the table of what is shown.

    Rows go by study: rising theta, then rising t_s; the columns are the first global image indices,
    whose noise and label every row shares.
    """
    stores = [ImageStore(path) for path in samples]
    stores.sort(key=lambda s: (s.manifest["experiment"], _setting(s)))
    rows = [
        (_row_name(s, studies, len({t.manifest["experiment"] for t in stores}) > 1), s.images)
        for s in stores
    ]
    rows = [(name, np.array(images[:_FIGURE_5_IMAGES])) for name, images in rows]
    labels = stores[0].labels[:_FIGURE_5_IMAGES]
    columns = [str(label) if label >= 0 else f"#{i}" for i, label in enumerate(labels)]
    table = pd.DataFrame(
        {
            "experiment": s.manifest["experiment"],
            "method": s.manifest["method"],
            **s.manifest["parameters"],
            "index": i,
            "label": int(s.labels[i]),
        }
        for s in stores
        for i in range(_FIGURE_5_IMAGES)
    )
    return rows, columns, table


def gallery_panels(
    samples: list[Path], data: Path, studies: dict
) -> tuple[str, list[tuple[str, np.ndarray]], pd.DataFrame]:
    """A gallery: its title, panels (name, uint8 images [36, C, H, W] or fewer), the table of what they show.

    Training images of the packed store `data` first, then every cell of one study at its first sampling seed:
    AdaDiff by theta and DuoDiff by t_s, the same global indices at the same place of every panel.
    """
    real = ImageStore(data)
    stores = [ImageStore(path) for path in samples]
    first = min(store.manifest["seed"] for store in stores)
    stores = [store for store in stores if store.manifest["seed"] == first]
    stores.sort(key=_setting)  # theta, t_s; sorting is stable
    stores.sort(key=lambda store: store.manifest["sampler"]["name"], reverse=True)  # DDPM, DDIM
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
    setting = f"$t_s$ = {value}" if kind == "b" else f"θ = {value:.3f}"
    sampler = store.manifest["sampler"]
    method = names[store.manifest["method"]]
    return f"{sampler['name'].upper()}-{sampler['steps']}, {method}, {setting}"


def _setting(store: ImageStore) -> tuple[str, float]:
    parameters = store.manifest["parameters"]
    return ("b", parameters["t_s"]) if "t_s" in parameters else ("a", parameters["theta"])


def _row_name(store: ImageStore, studies: dict, several: bool) -> str:
    kind, value = _setting(store)
    name = f"$t_s$ = {value}" if kind == "b" else f"θ = {value:.3f}"
    return f"{studies[store.manifest['experiment']]['title']}, {name}" if several else name
