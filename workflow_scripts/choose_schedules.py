from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.analysis.choices import Profile, chosen, gap_records, prediction_records
    from duodiff.running.files import read_json, sha256, write_json


def choose_schedules(
    losses: Path,
    profiled: Path,
    samplers: dict,
    out: Path,
    predictions: Path,
    displacements: Path | None = None,
) -> str:
    """Choose the schedules of a study's budgets from its profile, before anything is sampled. Writes them to --out.

    --losses and --displacements are the files of the profile, --profiled its records. --samplers is JSON: {"ddpm":
    {"options": {"name": "ddpm", "steps": 50}, "budgets": {"thrifty": {"operations": 0.7, "choose":
    "switch"}}}}. --predictions gets records of what is predicted, and of what the best choice gains over one switch.
    """
    profile = Profile(losses, displacements)
    found = chosen(profile, samplers)
    write_json(out, found)
    about = read_json(profiled)[0]
    measured = prediction_records(found, samplers, about, sha256(out))
    measured += gap_records(profile, samplers, about)
    records.write(predictions, measured)
    return f"{sum(map(len, found.values()))} schedules, {len(measured)} records"


if __name__ == "__main__":
    job.run(choose_schedules)
