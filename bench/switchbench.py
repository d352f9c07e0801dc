"""SwitchBench: all masks of a 10-step sampler between two networks, and how they are judged (`make switchbench`)."""

import os
from pathlib import Path

from duodiff.running import job

with job.importing():
    import pandas as pd

    from duodiff.plotting import style
    from duodiff.plotting.switchbench import agreement
    from duodiff.switchbench import plan
    from duodiff.switchbench.making import make_all
    from duodiff.switchbench.page import write_page
    from duodiff.switchbench.tables import write_tables


def switchbench(
    trained: list[Path], out: Path = plan.SHIPPED, processes: int = os.cpu_count() or 1
) -> str:
    """Make the files of SwitchBench in --out, and judge them by its plan.

    A training is made unless its files are there. A stopped run is continued by the same command, after the last
    compute batch.

    - `trained`: folders results/<experiment>/train<seed> of a run, with the networks of trainings of the plan
    - `out`: the folder of plan.yaml
    - `processes`: trainings that are made at a time
    """
    fixed = plan.read(out)
    make_all(trained, fixed, out, processes)
    whole = write_tables(fixed, out)
    for name in whole:
        scores = pd.read_csv(out / "scores.csv").query(f"set == {name!r}")
        style.save(agreement(scores), scores, [out / f"scores_{name}.svg"])
    write_page(fixed, out)
    return f"{len(trained)} trainings; whole sets: {', '.join(whole) or 'none'}"


if __name__ == "__main__":
    job.run(switchbench)
