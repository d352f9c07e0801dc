from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.analysis.runs import write_run


def describe_run(
    records: list[Path],
    benchmarks: Path,
    folders: list[str],
    rules: list[str],
    study: dict,
    machine: dict,
    page: Path,
    times: Path,
    settings: Path,
) -> str:
    """Write the machines, run times and configuration of a run: --page (HTML), --times (CSV), --settings (YAML).

    --folders are the folders of the run below --benchmarks. --rules are the rules to list, in order.
    --study and --machine are the sections of the configuration that decide results and those that do not.
    """
    return write_run(
        records,
        benchmarks,
        folders,
        rules,
        machine | study,
        overview=page,
        times=times,
        settings=settings,
    )


if __name__ == "__main__":
    job.run(describe_run)
