"""What the paper's claims are tested on: our studies, and its published tables in the same columns (no torch)."""

from dataclasses import dataclass

import pandas as pd

from duodiff.analysis.tables import cells, ideal_speedup, paper_table
from duodiff.paper import DATASETS, PAPER_IMAGES, PAPER_TITLES, SHALLOW_BLOCKS

_DERIVED = "exit layer derived"  # from the published time, so that nothing follows from the two
_PROFILES = "^(?:exit_|early_exits_|few_blocks_|loss_|full_loss_)"


@dataclass(frozen=True)
class Case:
    """One measurement a claim rests on; a value of None is one that could not be made, for the reason in `note`."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    covers: str | None = None
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Source:
    """What claims are tested on: one study of ours (one training), or one published dataset.

    `ddpm` and `ddim` are tables like `tables.cells`, None if not run; `profiles` the records of the exit and loss
    profiles; `heads` the time with all of AdaDiff's heads over the full backbone's.
    """

    title: str
    rests_on: str
    published: bool
    latent: bool
    ddpm: pd.DataFrame | None
    ddim: pd.DataFrame | None
    profiles: pd.DataFrame
    heads: list[Case]

    @property
    def adadiff_time(self) -> str:
        """The column of AdaDiff's times: measured, or interpolated (Appendix A.5) where no other is published."""
        return "seconds_interpolated" if self.published else "seconds"


def our_sources(records: pd.DataFrame, studies: dict[str, dict]) -> list[Source]:
    """One source a study (experiment and training seed) among `records`; `studies` as for `tables.comparison`."""
    found = []
    for (name, seed), study in records.groupby(["experiment", "train_seed"]):
        seeds = records[records["experiment"] == name]["train_seed"].nunique()
        heads = study[(study["method"] == "adadiff_all_heads") & (study["metric"] == "speedup")]
        tables = {}
        for sampler in ("ddpm", "ddim"):
            table = cells(study, sampler)
            tables[sampler] = _with_difference(table) if len(table) else None
        found.append(
            Source(
                title=studies[name]["title"] + (f", training seed {seed:.0f}" if seeds > 1 else ""),
                rests_on=f"one training (seed {seed:.0f})",
                published=False,
                latent=(study["metric"] == "decode_seconds_per_image").any(),
                profiles=study[study["metric"].str.contains(_PROFILES)],
                heads=[_heads_case(r) for r in heads[heads["sampler"] == "ddpm"].itertuples()],
                **tables,
            )
        )
    return found


def _heads_case(record) -> Case:
    interval = (1 / record.interval[1], 1 / record.interval[0])
    return Case("all heads", 1 / record.value, interval, record.interval_covers, record.n)


def published_sources(table_1: pd.DataFrame, table_2: pd.DataFrame) -> list[Source]:
    """One source a dataset of the paper's Table 2, with Table 1's DDIM rows where it has some."""
    found = []
    for dataset, rows in table_2.groupby("dataset", sort=False):
        ddim = table_1[table_1["dataset"] == dataset]
        ddpm = _published(paper_table(rows), dataset)
        found.append(
            Source(
                title=f"Paper, {PAPER_TITLES[dataset]}",
                rests_on="published numbers, no interval",
                published=True,
                latent=DATASETS[dataset].latent,
                ddpm=ddpm,
                ddim=_published(paper_table(ddim), dataset) if len(ddim) else None,
                profiles=pd.DataFrame({"metric": []}),
                heads=_published_heads(ddpm, rows["certainty"].str.contains(_DERIVED)),
            )
        )
    return found


def _published(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """A published table in the columns of `tables.cells`."""
    depth, full = DATASETS[dataset].blocks, table[table["t_s"] == 0].iloc[0]
    table = table.rename(columns={"fid": "distance", "seconds_per_image": "seconds"})
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


def _published_heads(ddpm: pd.DataFrame, derived: pd.Series) -> list[Case]:
    """Interpolated times taken back to the full depth, where the exit layer was published by itself."""
    rows = ddpm[(ddpm["method"] == "adadiff") & ~derived]
    over_full = ddpm["seconds_interpolated"] / ddpm[ddpm["t_s"] == 0]["seconds"].item()
    values = over_full * ddpm["depth"] / ddpm["mean_exit_layer"]
    return [Case(case_name(row), values[i], n=PAPER_IMAGES) for i, row in rows.iterrows()]


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with `minus_full`, and with the columns of intervals where there are none."""
    full = table["t_s"] == 0
    columns = ["speedup_low", "speedup_high", "speedup_covers", "speedup_n", "resampled"]
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *columns])))
    resampled = [r if isinstance(r, list) else None for r in table["resampled"]]
    resamples = {len(r) for r in resampled if r}
    if len(resamples) == 1:  # the full backbone minus itself
        zeros = [0.0] * resamples.pop()
        resampled = [zeros if f else r for f, r in zip(full, resampled, strict=True)]
    difference = table["distance"] - table[full]["distance"].item()
    return table.assign(
        minus_full=difference, resampled=pd.Series(resampled, table.index, dtype=object)
    )


def case_name(row: pd.Series) -> str:
    """A cell's setting, as text."""
    if pd.notna(row["t_s"]):
        return f"t_s = {row['t_s']:.0f}"
    if pd.notna(row["theta"]):
        return f"theta = {row['theta']:.3g}"
    return f"theta not known, exits at {row['mean_exit_layer']:.2f}"
