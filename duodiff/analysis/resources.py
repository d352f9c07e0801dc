"""The cost of every method, measured: operations, time, energy, memory; from the records of the timing job."""

import pandas as pd

COLUMNS = {
    "dataset": ("", "Dataset"),
    "sampler": ("", "Sampler"),
    "method": ("", "Method"),
    "t_s": ("", "t_s"),
    "theta": ("", "theta"),
    "schedule": ("", "Schedule"),
    "parameters_m": ("", "Parameters (M)"),
    "gflops_call": ("GFLOPs of an image", "a call"),
    "gflops_trajectory": ("GFLOPs of an image", "a trajectory"),
    "gflops_relative": ("GFLOPs of an image", "over full's"),
    "seconds": ("Time per image", "wall time"),
    "seconds_processor": ("Time per image", "processor time"),
    "joules": ("", "Joules per image"),
    "memory_mb": ("", "Peak memory (MB)"),
    "seconds_load": ("", "Time to load"),
    "n": ("", "Batch"),
    "dtype": ("", "Precision"),
    "device": ("", "Device"),
    "train_seed": ("", "Training seed"),
}
"""The table's columns: their group and heading."""

_METRICS = {
    "resident_parameters": "parameters_m",
    "mean_gflops_per_call": "gflops_call",
    "gflops_per_trajectory": "gflops_trajectory",
    "seconds_per_image": "seconds",
    "processor_seconds_per_image": "seconds_processor",
    "joules_per_image": "joules",
    "peak_memory_mb": "memory_mb",
    "load_seconds": "seconds_load",
}


def resources_table(records: pd.DataFrame, studies: dict[str, dict]) -> pd.DataFrame:
    """One row a setting of every study as it was timed; columns: COLUMNS. `studies` maps an experiment to its title."""
    mine = records[records["metric"].isin(_METRICS) & records["sampler"].notna()]
    studied = ["experiment", "train_seed", "sampler"]
    keys = [*(mine[name] for name in studied), mine["parameters"].map(str), mine["method"]]
    names = [*studied, "method", "t_s", "theta", "schedule", "n", "dtype", "device"]
    rows = []
    for _, group in mine.groupby(keys, sort=False):
        about, values = group.iloc[0], group.set_index("metric")["value"]
        measured = {column: values.get(name) for name, column in _METRICS.items()}
        rows.append({name: about.get(name) for name in names} | measured)
    table = pd.DataFrame(rows).sort_values([*studied, "t_s", "theta", "schedule"])
    table["parameters_m"] /= 1e6
    full = table[table["t_s"] == 0].set_index(studied)["gflops_trajectory"]
    bases = [full[tuple(row)] for row in table[studied].itertuples(index=False)]
    table["gflops_relative"] = table["gflops_trajectory"] / bases
    titles = {name: study["title"] for name, study in studies.items()}
    return table.assign(dataset=table["experiment"].map(titles)).reindex(columns=list(COLUMNS))
