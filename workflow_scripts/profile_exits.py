from pathlib import Path

from duodiff import job
from duodiff.analysis.exits import exit_profiles
from duodiff.files import write_csv


def profile_exits(samples: list[Path], out: Path) -> str:
    """Tabulate mean, spread, minimum and maximum exit layer per timestep of AdaDiff's sample stores."""
    table = exit_profiles(samples)
    write_csv(out, table)
    return f"{len(table)} rows"


if __name__ == "__main__":
    job.run(profile_exits)
