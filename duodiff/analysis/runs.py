"""What a run was made with and how long it took: devices from records, times from Snakemake's benchmarks."""

import html
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from duodiff.analysis.report import page
from duodiff.analysis.tables import load_records
from duodiff.running.files import write_csv, write_text

RUN_TIMES = {
    "rule": "Rule",
    "jobs": "Jobs",
    "minutes": "Minutes, all jobs",
    "longest_minutes": "Longest job, minutes",
    "peak_mb": "Peak memory, MB",
}
MACHINES = {
    "experiment": "Experiment",
    "device": "Device",
    "dtype": "Numbers",
    "libraries": "Versions",
}


def run_times(benchmarks: Path, folders: Iterable[str], rules: Iterable[str]) -> pd.DataFrame:
    """Run times by rule in the order of `rules`, columns RUN_TIMES, from the benchmark files below `benchmarks`.

    `folders` are those to look in (experiments, and data/ of their datasets); a file belongs to the rule
    that a part of its path names, a trailing number or `all` (a wildcard's) left out.
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
    """What each study was sampled, measured and timed on and with, columns MACHINES: one row a different answer.

    Every record names its device and library versions; `studies` maps an experiment to its title.
    """
    versions = [", ".join(f"{k} {v}" for k, v in found.items()) for found in records["libraries"]]
    titles = records["experiment"].map(lambda name: studies[name]["title"])
    found = records.assign(libraries=versions, experiment=titles)[list(MACHINES)]
    return found.dropna().drop_duplicates()


def write_run(
    records: list[Path],
    benchmarks: Path,
    folders: Iterable[str],
    rules: Iterable[str],
    configuration: dict,
    overview: Path,
    times: Path,
    settings: Path,
) -> str:
    """Writes what a run was: run times by rule (CSV), the whole configuration (YAML), and an HTML `overview` of
    both with the machines; a one-line summary.
    """
    table = run_times(benchmarks, folders, rules)
    devices = machines(load_records(records), configuration["experiments"])
    text = yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True)
    write_csv(times, table)
    write_text(settings, text)
    sections = {
        "Machines": _table(devices.rename(columns=MACHINES), "text"),
        "Run times": _table(table.rename(columns=RUN_TIMES).round(1)),
        "Configuration, defaults filled in": f"<pre>{html.escape(text)}</pre>",
    }
    body = "".join(f"<h2>{name}</h2>{content}" for name, content in sections.items())
    write_text(overview, page(body))
    return f"{table['jobs'].sum()} jobs, {table['minutes'].sum():.1f} minutes in all"


def _table(table: pd.DataFrame, kind: str = "") -> str:
    return table.to_html(index=False, border=0, classes=kind)
