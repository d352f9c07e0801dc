"""The machines and run times of a run: devices from records, times from Snakemake's benchmarks."""

import html
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from duodiff.analysis.cells import load_records
from duodiff.analysis.report import page
from duodiff.running.files import write_csv, write_text
from duodiff.running.provenance import makers

RUN_TIMES = {
    "rule": "Rule",
    "jobs": "Jobs",
    "minutes": "Minutes, all jobs",
    "longest_minutes": "Longest job, minutes",
    "peak_mb": "Peak memory, MB",
}
MACHINES = {
    "experiment": "Experiment",
    "work": "Work",
    "device": "Device",
    "dtype": "Numbers",
    "commit": "Commit",
    "libraries": "Versions",
}
# by the role of what was made; the others are networks
_WORK = {"": "measuring", "samples": "sampling"}
_COMMIT = 10  # characters of a commit's name


def run_times(benchmarks: Path, folders: Iterable[str], rules: Iterable[str]) -> pd.DataFrame:
    """Run times by rule in the order of `rules`, columns RUN_TIMES, from the benchmark files below `benchmarks`.

    `folders` names the folders to look in: experiments, and data/ of their datasets. A file belongs to the rule that
    a part of its path names. The file's own name may end with a wildcard's value, a number or `all`.
    """
    jobs = []
    for folder in folders:
        for path in sorted((benchmarks / folder).rglob("*.tsv")):
            parts = [*path.parts[:-1], path.stem, path.stem.rpartition("_")[0]]
            name = next((part for part in parts if part in rules), None)
            if name is not None:
                jobs.append(pd.read_csv(path, sep="\t", na_values="-").assign(rule=name))
    if not jobs:
        return pd.DataFrame(columns=list(RUN_TIMES))
    by_rule = pd.concat(jobs).groupby("rule")
    table = pd.DataFrame(
        {
            "jobs": by_rule.size(),
            "minutes": by_rule["s"].sum() / 60,
            "longest_minutes": by_rule["s"].max() / 60,
            "peak_mb": by_rule["max_rss"].max(),
        }
    )
    return table.reindex([rule for rule in rules if rule in table.index]).reset_index()


def machines(records: pd.DataFrame, studies: dict[str, dict]) -> pd.DataFrame:
    """What made each study's records, their samples and the networks of these, columns MACHINES, each row once.

    `studies` maps an experiment to its title. The type of numbers is that of sampling and measuring; records do not
    tell it of a training.
    """
    rows = []
    for record in records[["experiment", "dtype", "made"]].itertuples(index=False):
        for role, one in makers(record.made):
            work = _WORK.get(role, f"training {role}")
            commit = one.get("commit", "")[:_COMMIT] + " (modified)" * one.get("modified", False)
            versions = ", ".join(f"{k} {v}" for k, v in one["libraries"].items())
            numbers = record.dtype if role in _WORK else ""
            title = studies[record.experiment]["title"]
            rows.append((title, work, one["device"], numbers, commit, versions))
    return pd.DataFrame(rows, columns=list(MACHINES)).drop_duplicates()


def write_run(
    records: list[Path],
    benchmarks: Path,
    folders: Iterable[str],
    rules: Iterable[str],
    configuration: dict,
    *,
    overview: Path,
    times: Path,
    settings: Path,
) -> str:
    """Writes a run's `times` by rule (CSV), its configuration as `settings` (YAML), and an HTML `overview`.

    The overview has both and the machines. Returns a one-line summary.
    """
    table = run_times(benchmarks, folders, rules)
    devices = machines(load_records(records), configuration["experiments"])
    text = yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)
    write_csv(times, table)
    write_text(settings, text)
    sections = {
        "Machines": _table(devices.rename(columns=MACHINES), "text"),
        "Run times": _table(table.rename(columns=RUN_TIMES).round(1)),
        "Configuration, defaults filled in, shards left out": f"<pre>{html.escape(text)}</pre>",
    }
    body = "".join(f"<h2>{name}</h2>{content}" for name, content in sections.items())
    write_text(overview, page(body))
    return f"{table['jobs'].sum()} jobs, {table['minutes'].sum():.1f} minutes in all"


def _table(table: pd.DataFrame, kind: str = "") -> str:
    return table.to_html(index=False, border=0, classes=kind)
