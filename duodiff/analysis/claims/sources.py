"""What the paper's claims are tested on: our studies, and its published tables in the same columns (no torch)."""

from dataclasses import dataclass

import pandas as pd

from duodiff.analysis.cells import cells, ideal_speedup, published_rows
from duodiff.analysis.fewer import fewer_step_cells
from duodiff.analysis.trainings import seeds_text
from duodiff.paper import DATASETS, PAPER_IMAGES, PAPER_TITLES, SHALLOW_BLOCKS

_OURS = ["resampled", "speedup_resampled", "speedup_disturbed"]
_SCALE = ["real_held_out", "noise"]


@dataclass(frozen=True)
class Training:
    """One training of a study of ours, or one published dataset.

    `ddpm` and `ddim` are tables like `cells.cells`, None if not run, with `minus_full` in every row. `records` are
    the training's, and those of real images and noise; a published dataset has none. `fewer` are the cells under DDPM
    with fewer steps (`analysis.fewer`), None if there are none.
    """

    published: bool
    latent: bool
    ddpm: pd.DataFrame | None
    ddim: pd.DataFrame | None
    records: pd.DataFrame
    fewer: pd.DataFrame | None = None


@dataclass(frozen=True)
class Source:
    """What claims are tested on: a study of ours with all its trainings, or one published dataset.

    `scale` is toy, reduced or the paper's. `experiment` is a study's name, "" if published.
    """

    title: str
    experiment: str
    rests_on: str
    scale: str
    trainings: list[Training]

    @property
    def published(self) -> bool:
        """Whether the numbers are the paper's."""
        return self.trainings[0].published


def our_sources(
    records: pd.DataFrame, studies: dict[str, dict], fewer_steps: pd.DataFrame | None = None
) -> list[Source]:
    """One source an experiment among `records`; `studies` maps an experiment to its title, paper_dataset and scale.

    `fewer_steps` are the records of cells with fewer steps (`cells.load_fewer_steps`).
    """
    sources = []
    for name, mine in records.groupby("experiment"):
        scale = mine[mine["method"].isin(_SCALE)].drop_duplicates(["method", "metric"])
        trainings = {
            seed: Training(
                published=False,
                latent=(study["metric"] == "decode_seconds_per_image").any(),
                ddpm=_our_cells(study, "ddpm"),
                ddim=_our_cells(study, "ddim"),
                records=pd.concat([study, scale]),
                fewer=_our_fewer(study, fewer_steps),
            )
            for seed, study in mine.groupby("train_seed")
        }
        seeds = seeds_text(list(trainings))
        some = f"{len(trainings)} trainings (seeds {seeds})"
        sources.append(
            Source(
                title=studies[name]["title"],
                experiment=name,
                rests_on=some if len(trainings) > 1 else f"one training (seed {seeds})",
                scale=studies[name]["scale"],
                trainings=list(trainings.values()),
            )
        )
    return sources


def published_sources(table_1: pd.DataFrame, table_2: pd.DataFrame) -> list[Source]:
    """One source a dataset of the paper's Table 2, with Table 1's DDIM rows where it has some."""
    sources = []
    for dataset, ddpm in table_2.groupby("dataset", sort=False):
        ddim = table_1[table_1["dataset"] == dataset]
        training = Training(
            published=True,
            latent=DATASETS[dataset].latent,
            ddpm=_published_cells(ddpm, dataset),
            ddim=_published_cells(ddim, dataset) if len(ddim) else None,
            records=pd.DataFrame(),
        )
        sources.append(
            Source(
                title=f"Paper, {PAPER_TITLES[dataset]}",
                experiment="",
                rests_on="published numbers, no interval",
                scale="the paper's",
                trainings=[training],
            )
        )
    return sources


def _our_cells(study: pd.DataFrame, sampler: str) -> pd.DataFrame | None:
    """The cells under one sampler; those of named schedules, on which the paper has no claim, are left out."""
    table = cells(study, sampler)
    if table.empty:
        return None
    return _with_difference(table[table["method"] != "schedule"].reset_index(drop=True))


def _our_fewer(study: pd.DataFrame, fewer_steps: pd.DataFrame | None) -> pd.DataFrame | None:
    """The cells of fewer steps under DDPM of the training `study`."""
    own = cells(study, "ddpm")
    if fewer_steps is None or own.empty:
        return None
    found = fewer_step_cells(fewer_steps, own, "ddpm")
    return found if len(found) else None


def _published_cells(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Published rows of one dataset in the columns of `cells.cells`; AdaDiff's times and speed-ups are interpolated."""
    published = published_rows(rows)
    depth, full = DATASETS[dataset].blocks, published[published["t_s"] == 0].iloc[0]
    table = published.rename(columns={"fid": "distance", "seconds_per_image": "seconds"})
    ideal = [ideal_speedup(t_s, SHALLOW_BLOCKS / depth) for t_s in table["t_s"]]
    table = table.assign(
        depth=depth,
        n=PAPER_IMAGES,
        speedup=full["seconds_per_image"] / table["seconds"],
        ideal_speedup=ideal,
    )
    return _with_difference(table)


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with `minus_full`, and with the columns of resamples where there are none.

    The full backbone minus itself, and its speed-up, have resamples that do not vary.
    """
    full = table["t_s"] == 0
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *_OURS])))
    table["minus_full"] = table["distance"] - table[full]["distance"].item()
    for name, value in (("resampled", 0.0), ("speedup_resampled", 1.0)):
        found = [r if isinstance(r, list) and r else None for r in table[name]]
        lengths = {len(r) for r in found if r}
        if len(lengths) == 1:
            same = [value] * lengths.pop()
            found = [same if f and r is None else r for f, r in zip(full, found, strict=True)]
        table[name] = pd.Series(found, table.index, dtype=object)
    return table
