from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.analysis.choices import Profile, chosen, gap_records
    from duodiff.running.files import read_json, write_json


def choose_schedules(
    losses: Path,
    profiled: Path,
    samplers: dict,
    out: Path,
    gaps: Path,
    displacements: Path | None = None,
) -> str:
    """Choose the schedules of a study's budgets from its profile, before anything is sampled. Writes them to --out.

    --losses and --displacements are the files of the profile, --profiled its records. --samplers is JSON: {"ddpm":
    {"options": {"name": "ddpm", "steps": 50}, "budgets": {"thrifty": {"operations": 0.7, "choose":
    "switch"}}}}. --gaps gets records of what the best assignment gains over a single switch.
    """
    profile = Profile(losses, displacements)
    found = chosen(profile, samplers)
    write_json(out, found)
    measured = gap_records(profile, samplers, read_json(profiled)[0])
    records.write(gaps, measured)
    return f"{sum(map(len, found.values()))} schedules, {len(measured)} records"


if __name__ == "__main__":
    job.run(choose_schedules)
