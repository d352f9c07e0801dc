"""The plotted lines and points of each figure, from records and small CSV files.

`studies` maps an experiment to its title; the study that a file belongs to is read off its path,
results/{experiment}/train{train_seed}/...
"""

import re
from pathlib import Path

import pandas as pd

from duodiff.analysis.cells import cells, load_records, over_full, published_rows
from duodiff.paper import PAPER_IMAGES, PAPER_TITLES
from duodiff.running.files import read_json

_TRADE_OFF = ["panel", "metric", "method", "label", "seconds", "distance", "spread", "inferred"]
_RELATIVE = ["source", "method", "label", "relative_distance", "time_saved", "blocks_run"]

# --- lines


def exit_layer_lines(profiles: list[Path], studies: dict) -> pd.DataFrame:
    """Figure 1: the exit profiles of each study under DDPM at its first sampling seed."""
    lines = _read(profiles, studies)
    return _first_seed(lines[lines["sampler"] == "ddpm"])


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
    points = _read(curves, studies)
    return _first_seed(points[(points["sampler"] == "ddpm") & points["t_s"].notna()])


def _read(paths: list[Path], studies: dict) -> pd.DataFrame:
    """The CSV tables of several studies as one, with their title and train_seed."""
    tables = []
    for path in paths:
        experiment, seed = _study_of(path)
        title = study_title(studies, experiment, seed)
        tables.append(pd.read_csv(path).assign(title=title, train_seed=seed))
    return pd.concat(tables, ignore_index=True)


def _study_of(path: Path) -> tuple[str, int]:
    """The experiment and training seed in the path of a study's file. Raises ValueError where it has none."""
    match = re.search(r"([^/]+)/train(\d+)/", Path(path).as_posix())
    if match is None:
        raise ValueError(f"{path}: not below {{experiment}}/train{{train_seed}}")
    return match[1], int(match[2])


def study_title(studies: dict, experiment: str, train_seed: int) -> str:
    """What figures call a study: its experiment's title, with the training seed if it is not 0."""
    title = studies[experiment]["title"]
    return title if int(train_seed) == 0 else f"{title}, training seed {train_seed}"


def _first_seed(lines: pd.DataFrame) -> pd.DataFrame:
    """The rows of each study's first sampling seed."""
    first = lines.groupby("title")["sample_seed"].transform("first")
    return lines[lines["sample_seed"] == first]


# --- points of ours and of the paper


def trade_off_points(records: list[Path], published: Path, studies: dict) -> pd.DataFrame:
    """Points of Figure 4: our studies under DDPM, then the published datasets (the file of Table 1 or 2).

    `inferred` marks a published point whose setting or exit layer is not in the paper (its certainty says so).
    """
    panels = []
    ours = cells(load_records(records), "ddpm")
    for (name, seed), study in ours.groupby(["experiment", "train_seed"]):
        title = f"{study_title(studies, name, seed)} (ours, n = {study['n'].iloc[0]})"
        curves = [_curve(study, "seconds", "adadiff")]
        if "seconds_interpolated" in study:
            # the thetas are named once, at their measured times
            interpolated = _curve(study, "seconds_interpolated", "adadiff_interpolated")
            curves.append(interpolated.assign(label=""))
        points = pd.concat(curves).drop_duplicates(["method", "t_s", "theta"])
        panels.append(points.assign(panel=title, metric=study["metric"].iloc[0], inferred=False))
    table = pd.read_csv(published)
    sampler = "" if "sampler" not in table else f", {table['sampler'].iloc[0].upper()}"
    rows = published_rows(table).rename(columns={"fid": "distance"})
    for dataset, points in rows.groupby("dataset", sort=False):
        points = _curve(points, "seconds_per_image", "adadiff_interpolated")
        title = f"{PAPER_TITLES[dataset]}{sampler} (paper, n = {PAPER_IMAGES})"
        panels.append(points.assign(panel=title, metric="FID", inferred=_inferred(points)))
    return pd.concat(panels, ignore_index=True).reindex(columns=_TRADE_OFF)


def _curve(table: pd.DataFrame, seconds: str, adadiff: str) -> pd.DataFrame:
    """One panel's points: the full backbone, DuoDiff from t_s = 0 to T, and AdaDiff called `adadiff`."""
    switched, exited = table[table["t_s"].notna()], table[table["t_s"].isna()]
    methods = [
        switched[switched["t_s"] == 0].assign(method="full", label=""),
        switched.assign(method="duodiff", label=switched["t_s"].map("{:.0f}".format)),
        exited.assign(method=adadiff, label=exited["theta"].map("{:.3g}".format)),
    ]
    points = pd.concat(methods).assign(seconds=lambda t: t[seconds])
    return points[points["seconds"].notna()].replace({"label": {"nan": ""}})


def relative_points(
    records: list[Path], published: Path, architectures: Path, studies: dict
) -> pd.DataFrame:
    """Points that compare across datasets: relative distance against the time saved and the blocks run, under DDPM.

    Columns: source, method (full, duodiff, shallow, adadiff), label (t_s or theta), relative_distance (over the full
    backbone's), time_saved (percent of the full backbone's; AdaDiff's interpolated, as the paper's), blocks_run
    (percent; AdaDiff alone), n and inferred. `published` is the file of Table 2, `architectures` the JSON of
    describe_architectures, which has the number of blocks.
    """
    rows = published_rows(pd.read_csv(published))
    sources = [_published_relative(rows, read_json(architectures)["paper"])]
    ours = cells(load_records(records), "ddpm")
    for (name, seed), study in ours.groupby(["experiment", "train_seed"]):
        title = f"{study_title(studies, name, seed)} (ours, {study['metric'].iloc[0]})"
        sources.append(_our_relative(study).assign(source=title, inferred=False))
    points = pd.concat(sources, ignore_index=True)
    points["label"] = points["t_s"].map("{:.0f}".format).where(points["t_s"].notna(), "")
    theta = points["theta"].notna()
    points.loc[theta, "label"] = points.loc[theta, "theta"].map("{:.3g}".format)
    return points.reindex(columns=[*_RELATIVE, "n", "inferred"])


def _published_relative(rows: pd.DataFrame, networks: dict) -> pd.DataFrame:
    """`rows` of all datasets; `networks` of the paper's experiments, by dataset."""
    depth = {name: roles["full"]["architecture"]["depth"] for name, roles in networks.items()}
    return rows.assign(
        source=rows["dataset"].map(PAPER_TITLES) + " (paper, FID)",
        time_saved=100 * (1 - 1 / rows["speedup"]),
        blocks_run=100 * rows["mean_exit_layer"] / rows["dataset"].map(depth),
        n=PAPER_IMAGES,
        inferred=_inferred(rows),
    )


def _our_relative(study: pd.DataFrame) -> pd.DataFrame:
    full = study[study["t_s"] == 0]["seconds"].iloc[0]
    seconds = study["seconds"]
    if "seconds_interpolated" in study:
        seconds = study["seconds_interpolated"].fillna(seconds)
    points = study.assign(
        relative_distance=over_full(study, "distance"), time_saved=100 * (1 - seconds / full)
    )
    if "mean_exit_layer" in study:
        share = study["mean_exit_layer"] / study["depth"].astype(float)
        points = points.assign(blocks_run=100 * share)
    return points


def _inferred(rows: pd.DataFrame) -> pd.Series:
    """Whether a published row rests on an inferred, derived or unknown setting, by its certainty."""
    return rows["certainty"].str.contains("inferred|derived|unknown", na=False)
