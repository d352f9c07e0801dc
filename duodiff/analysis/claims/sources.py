"""What the paper's claims are tested on: our studies, and its published tables in the same columns (no torch)."""

from dataclasses import dataclass

import pandas as pd

from duodiff.analysis.cells import cells, ideal_speedup, published_rows
from duodiff.paper import DATASETS, PAPER_IMAGES, PAPER_TITLES, SHALLOW_BLOCKS

_INTERVALS = ["speedup_low", "speedup_high", "speedup_covers", "speedup_n", "resampled"]


@dataclass(frozen=True)
class Source:
    """What claims are tested on: one study of ours (one training), or one published dataset.

    `ddpm` and `ddim` are tables like `cells.cells`, None if not run, with `minus_full` in every row. `records` are
    the study's; a published dataset has none.
    """

    title: str
    rests_on: str
    published: bool
    latent: bool
    ddpm: pd.DataFrame | None
    ddim: pd.DataFrame | None
    records: pd.DataFrame

    @property
    def adadiff_time(self) -> str:
        """The column of AdaDiff's times: measured, or interpolated (Appendix A.5) where no other is published."""
        return "seconds_interpolated" if self.published else "seconds"


def our_sources(records: pd.DataFrame, studies: dict[str, dict]) -> list[Source]:
    """One source a study (experiment and training seed) among `records`; `studies` as for `tables.comparison`."""
    sources = []
    for (name, seed), study in records.groupby(["experiment", "train_seed"]):
        seeds = records[records["experiment"] == name]["train_seed"].nunique()
        sources.append(
            Source(
                title=studies[name]["title"] + (f", training seed {seed:.0f}" if seeds > 1 else ""),
                rests_on=f"one training (seed {seed:.0f})",
                published=False,
                latent=(study["metric"] == "decode_seconds_per_image").any(),
                ddpm=_our_cells(study, "ddpm"),
                ddim=_our_cells(study, "ddim"),
                records=study,
            )
        )
    return sources


def published_sources(table_1: pd.DataFrame, table_2: pd.DataFrame) -> list[Source]:
    """One source a dataset of the paper's Table 2, with Table 1's DDIM rows where it has some."""
    sources = []
    for dataset, ddpm in table_2.groupby("dataset", sort=False):
        ddim = table_1[table_1["dataset"] == dataset]
        sources.append(
            Source(
                title=f"Paper, {PAPER_TITLES[dataset]}",
                rests_on="published numbers, no interval",
                published=True,
                latent=DATASETS[dataset].latent,
                ddpm=_published_cells(ddpm, dataset),
                ddim=_published_cells(ddim, dataset) if len(ddim) else None,
                records=pd.DataFrame(),
            )
        )
    return sources


def _our_cells(study: pd.DataFrame, sampler: str) -> pd.DataFrame | None:
    table = cells(study, sampler)
    return _with_difference(table) if len(table) else None


def _published_cells(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Published rows of one dataset in the columns of `cells.cells`."""
    published = published_rows(rows)
    depth, full = DATASETS[dataset].blocks, published[published["t_s"] == 0].iloc[0]
    table = published.rename(columns={"fid": "distance", "seconds_per_image": "seconds"})
    exited = table["method"] == "adadiff"
    ideal = [ideal_speedup(t_s, SHALLOW_BLOCKS / depth) for t_s in table["t_s"]]
    table = table.assign(
        depth=depth,
        n=PAPER_IMAGES,
        speedup=full["seconds_per_image"] / table["seconds"],
        ideal_speedup=ideal,
        seconds_interpolated=table["seconds"].where(exited),
        seconds=table["seconds"].mask(exited),
    )
    return _with_difference(table)


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with `minus_full`, and with the columns of intervals where there are none."""
    full = table["t_s"] == 0
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *_INTERVALS])))
    resampled = [r if isinstance(r, list) else None for r in table["resampled"]]
    resamples = {len(r) for r in resampled if r}
    if len(resamples) == 1:  # the full backbone minus itself
        zeros = [0.0] * resamples.pop()
        resampled = [zeros if f else r for f, r in zip(full, resampled, strict=True)]
    difference = table["distance"] - table[full]["distance"].item()
    return table.assign(
        minus_full=difference, resampled=pd.Series(resampled, table.index, dtype=object)
    )
