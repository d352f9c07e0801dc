"""The plotted lines and points of each figure, from records and small CSV files.

`studies` maps an experiment to its title; the study that a file belongs to is read off its path,
results/{experiment}/train{train_seed}/...
An experiment with several trainings is one study in a figure: rows of its trainings, to be drawn faintly, and rows of
their mean (`analysis.trainings.with_means`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.analysis.cells import (
    cells,
    load_fewer_steps,
    load_records,
    over_full,
    published_rows,
)
from duodiff.analysis.fewer import fewer_step_cells
from duodiff.analysis.trainings import over_trainings, with_means
from duodiff.paper import PAPER_IMAGES, PAPER_TITLES
from duodiff.running.files import read_json

_OF_TRAININGS = ["faint", "train_seed", "trainings"]
_TRADE_OFF = [
    "panel",
    "metric",
    "method",
    "label",
    "t_s",
    "theta",
    "nfe",
    "seconds",
    "seconds_95",
    "speedup",
    "speedup_95",
    "distance",
    "distance_95",
    "lost_share",
    "inferred",
]
_RELATIVE = [
    "source",
    "method",
    "label",
    "relative_distance",
    "relative_95",
    "time_saved",
    "blocks_run",
]

# --- lines


def exit_layer_lines(profiles: list[Path], studies: dict) -> pd.DataFrame:
    """Figure 1: the exit profiles of each study under DDPM at its first sampling seed."""
    lines = _read(profiles, studies)
    return with_means(_first_seed(lines[lines["sampler"] == "ddpm"]), ["setting", "t"])


def training_lines(curves: list[Path], studies: dict) -> pd.DataFrame:
    """Loss curves of all trainings, with the model's role from its folder."""
    lines = _read(curves, studies, model=lambda path: path.parent.name)
    return with_means(lines, ["model", "step"])


def denoising_lines(losses: list[Path], studies: dict) -> pd.DataFrame:
    """Held-out losses over t of all studies."""
    return with_means(_read(losses, studies), ["network", "layer", "t"])


def extrapolation_points(curves: list[Path], studies: dict) -> pd.DataFrame:
    """Distance against the number of images, of the DuoDiff cells under DDPM at the first sampling seed."""
    points = _read(curves, studies)
    points = _first_seed(points[(points["sampler"] == "ddpm") & points["t_s"].notna()])
    return with_means(points, ["t_s", "n"])


def _read(paths: list[Path], studies: dict, **columns: Callable[[Path], str]) -> pd.DataFrame:
    """The CSV tables of several trainings as one, with title (of the experiment, see `titles`) and train_seed.

    Further `columns` are functions of a table's path.
    """
    of = [_study_of(path) for path in paths]
    names = titles(of, studies)
    tables = []
    for path, (experiment, seed) in zip(paths, of, strict=True):
        more = {name: function(Path(path)) for name, function in columns.items()}
        about = {"title": names[experiment], "train_seed": seed} | more
        tables.append(pd.read_csv(path).assign(**about))
    return pd.concat(tables, ignore_index=True)


def titles(trainings: Iterable[tuple[str, int]], studies: dict) -> dict[str, str]:
    """What figures call each experiment of these (experiment, training seed): with the seed of an only training."""
    seeds: dict[str, set] = {}
    for experiment, seed in trainings:
        seeds.setdefault(experiment, set()).add(int(seed))
    return {
        name: study_title(studies, name, min(found)) if len(found) == 1 else studies[name]["title"]
        for name, found in seeds.items()
    }


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
    """The rows of each training's first sampling seed."""
    first = lines.groupby(["title", "train_seed"])["sample_seed"].transform("first")
    return lines[lines["sample_seed"] == first]


# --- points of ours and of the paper


def trade_off_points(records: list[Path], published: Path, studies: dict) -> pd.DataFrame:
    """Points of Figure 4: our studies under DDPM, then the published datasets (the file of Table 1 or 2).

    `distance_95` is half the 95% interval of the difference to the full backbone's distance, paired by noise and label.
    `seconds_95` is half the interval of the speed-up, as a time. Over several trainings both are Student's.
    The full backbone with fewer steps is a method of its own, full_fewer_steps, and so is DuoDiff, duodiff_fewer_steps
    (`analysis.fewer`). A named schedule is a point. `lost_share` is missing for published points. `inferred` marks a
    published point whose setting or exit layer is not in the paper (its certainty says so).
    """
    panels = []
    ours = cells(load_records(records), "ddpm")
    every, fewer = (
        ours.assign(fewer=False),
        fewer_step_cells(load_fewer_steps(records), ours, "ddpm"),
    )
    if len(fewer):
        every = pd.concat([every, fewer.assign(fewer=True)])
    for study in _with_mean(every):
        shown = _our_curves(study)
        title = f"{_title(ours, study, studies)} (ours, {study['n'].iloc[0]:,} images)"
        if study["faint"].iloc[0]:
            shown = shown.assign(label="")
        panels.append(shown.assign(panel=title, metric=study["metric"].iloc[0], inferred=False))
    table = pd.read_csv(published)
    sampler = "" if "sampler" not in table else f", {table['sampler'].iloc[0].upper()}"
    rows = published_rows(table).rename(columns={"fid": "distance"})
    for dataset, points in rows.groupby("dataset", sort=False):
        points = _curve(points, "seconds_per_image", "adadiff_interpolated")
        title = f"{PAPER_TITLES[dataset]}{sampler} (paper, {PAPER_IMAGES:,} images)"
        points = points.assign(panel=title, metric="FID", inferred=_inferred(points))
        panels.append(points.assign(faint=False))
    columns = [*_TRADE_OFF, *_OF_TRAININGS]
    points = pd.concat(panels, ignore_index=True).reindex(columns=columns)
    return points.astype({"faint": bool})


def _with_mean(ours: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The cells of each training, and after the trainings of an experiment that has several those of their mean.

    `faint` is True for the cells of single trainings beside a mean.
    """
    for _, group in ours.groupby("experiment"):
        several = group["train_seed"].nunique() > 1
        for _, study in group.groupby("train_seed"):
            yield study.assign(faint=several, trainings=1)
        if several:
            yield over_trainings(group).assign(faint=False)


def _title(ours: pd.DataFrame, study: pd.DataFrame, studies: dict) -> str:
    """What figures call the experiment of a `study`'s cells, among the cells of all trainings."""
    of = zip(ours["experiment"], ours["train_seed"], strict=True)
    return titles(of, studies)[study["experiment"].iloc[0]]


def _our_curves(study: pd.DataFrame) -> pd.DataFrame:
    """The points of Figure 4 of one training, or of a mean over trainings.

    `fewer` marks the cells with fewer steps.
    """
    study = study.rename(columns={"minus_full_95": "distance_95"})
    if "speedup_low" in study:  # of one training
        study["speedup_95"] = (study["speedup_high"] - study["speedup_low"]).astype(float) / 2
    study["seconds_95"] = study["seconds"] * study["speedup_95"] / study["speedup"]
    own, fewer = study[~study["fewer"].astype(bool)], study[study["fewer"].astype(bool)]
    curves = [_curve(own, "seconds", "adadiff")]
    if "seconds_interpolated" in own:
        # the thetas are named once, at their measured times
        interpolated = _curve(own, "seconds_interpolated", "adadiff_interpolated")
        full = own.loc[own["t_s"] == 0, "seconds"].iloc[0]
        unknown = {"seconds_95": np.nan, "speedup_95": np.nan}
        speedup = full / interpolated["seconds"]
        curves.append(interpolated.assign(label="", speedup=speedup, **unknown))
    points = pd.concat(curves).drop_duplicates(["method", "t_s", "theta", "schedule"])
    return pd.concat([points, _fewer_steps(fewer, own)]) if len(fewer) else points


def _fewer_steps(fewer: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The line of the full backbone with fewer steps, from its point at all steps, and DuoDiff's points."""
    full, switched = fewer[fewer["t_s"] == 0], fewer[fewer["t_s"] > 0]
    calls, named = full["nfe"].map("{:.0f}".format), switched["t_s"].map("{:.0f} in ".format)
    return pd.concat(
        [
            own[own["t_s"] == 0].assign(method="full_fewer_steps", label=""),
            full.assign(method="full_fewer_steps", label=calls),
            switched.assign(
                method="duodiff_fewer_steps", label=named + switched["nfe"].map("{:.0f}".format)
            ),
        ]
    ).dropna(subset="seconds")


def _curve(table: pd.DataFrame, seconds: str, adadiff: str) -> pd.DataFrame:
    """One panel's points: full, DuoDiff from t_s = 0 to T, AdaDiff called `adadiff`, and named schedules."""
    of_name = table["method"] == "schedule"
    named, unnamed = table[of_name], table[~of_name]
    switched, exited = unnamed[unnamed["t_s"].notna()], unnamed[unnamed["t_s"].isna()]
    methods = [
        switched[switched["t_s"] == 0].assign(method="full", label=""),
        switched.assign(method="duodiff", label=switched["t_s"].map("{:.0f}".format)),
        exited.assign(method=adadiff, label=exited["theta"].map(theta_text)),
        named.assign(label=named.get("schedule")),
    ]
    points = pd.concat(methods).assign(seconds=lambda t: t[seconds])
    return points[points["seconds"].notna()]


def theta_text(theta: float) -> str:
    """A threshold as figures name it, with three decimals at most; "" for an unknown one."""
    return "" if pd.isna(theta) else f"{theta:.3f}".rstrip("0").rstrip(".")


def relative_points(
    records: list[Path], published: Path, architectures: Path, studies: dict
) -> pd.DataFrame:
    """Points that compare across datasets: relative distance against the time saved and the blocks run, under DDPM.

    Columns: source, method (full, duodiff, shallow, adadiff), label (t_s or theta), relative_distance (over the full
    backbone's), relative_95 (half its 95% interval), time_saved (percent of the full backbone's; AdaDiff's
    interpolated, as the paper's), blocks_run
    (percent; AdaDiff alone), n and inferred. `published` is the file of Table 2, `architectures` the JSON of
    describe_architectures, which has the number of blocks.
    """
    rows = published_rows(pd.read_csv(published))
    sources = [_published_relative(rows, read_json(architectures)["paper"])]
    ours = cells(load_records(records), "ddpm")
    if len(ours):
        ours = ours[ours["method"] != "schedule"]
    relative = [_our_relative(study) for _, study in ours.groupby(["experiment", "train_seed"])]
    ours = pd.concat(relative, ignore_index=True) if relative else ours
    for study in _with_mean(ours):
        title = f"{_title(ours, study, studies)} (ours, {study['metric'].iloc[0]})"
        sources.append(study.assign(source=title, inferred=False))
    points = pd.concat(sources, ignore_index=True)
    points["label"] = points["t_s"].map("{:.0f}".format).where(points["t_s"].notna(), "")
    theta = points["theta"].notna()
    points.loc[theta, "label"] = points.loc[theta, "theta"].map(theta_text)
    return points.reindex(columns=[*_RELATIVE, "n", "inferred", *_OF_TRAININGS])


def _published_relative(rows: pd.DataFrame, networks: dict) -> pd.DataFrame:
    """`rows` of all datasets; `networks` of the paper's experiments, by dataset."""
    depth = {name: roles["full"]["architecture"]["depth"] for name, roles in networks.items()}
    return rows.assign(
        source=rows["dataset"].map(PAPER_TITLES) + " (paper, FID)",
        time_saved=100 * (1 - 1 / rows["speedup"]),
        blocks_run=100 * rows["mean_exit_layer"] / rows["dataset"].map(depth),
        n=PAPER_IMAGES,
        inferred=_inferred(rows),
        faint=False,
    )


def _our_relative(study: pd.DataFrame) -> pd.DataFrame:
    points = study.assign(
        relative_distance=over_full(study, "distance"),
        relative_95=over_full(study, "distance") * study["minus_full_95"] / study["distance"],
    )
    time = 1 / study["speedup"]
    if "mean_exit_layer" in study:
        share = study["mean_exit_layer"] / study["depth"].astype(float)
        points = points.assign(blocks_run=100 * share)
        if "all_heads_cost" in study:
            time = (study["all_heads_cost"] * share).fillna(time)
    return points.assign(time_saved=100 * (1 - time))


def _inferred(rows: pd.DataFrame) -> pd.Series:
    """Whether a published row rests on an inferred, derived or unknown setting, by its certainty."""
    return rows["certainty"].str.contains("inferred|derived|unknown", na=False)
