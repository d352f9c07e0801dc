from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.metrics.exits import exit_profiles, exit_records
    from duodiff.running.files import write_csv


def profile_exits(samples: list[Path], table: Path, out: Path) -> str:
    """Tabulate mean, spread, minimum and maximum exit layer per timestep of AdaDiff's sample stores (--table), and
    write records of how step-like these profiles are (--out).
    """
    profiles, found = exit_profiles(samples), exit_records(samples)
    write_csv(table, profiles)
    records.write(out, found)
    return f"{len(profiles)} rows, {len(found)} records"


if __name__ == "__main__":
    job.run(profile_exits)
