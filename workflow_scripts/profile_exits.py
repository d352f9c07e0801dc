from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.metrics.exits import exit_profiles, exit_records
    from duodiff.running.files import write_csv


def profile_exits(samples: list[Path], table: Path, out: Path) -> str:
    """Describe the exit layers of AdaDiff's sample stores over t.

    --table gets mean, standard deviation, minimum and maximum exit layer at each timestep. --out gets records of how
    close each of these profiles is to a step.
    """
    profiles, statistics = exit_profiles(samples), exit_records(samples)
    write_csv(table, profiles)
    records.write(out, statistics)
    return f"{len(profiles)} rows, {len(statistics)} records"


if __name__ == "__main__":
    job.run(profile_exits)
