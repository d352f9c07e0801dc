from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff import records
    from duodiff.autoencoder import load as load_autoencoder
    from duodiff.metrics.latency import measure_cells
    from duodiff.settings import Schedules


def measure_latency(
    experiment: str,
    protocol: str,
    conventions: dict,
    full: Path,
    shallow: Path,
    grid: dict,
    batch: int,
    repeats: int,
    threads: int,
    train_seed: int,
    seed: int,
    device: str,
    out: Path,
    heads: Path | None = None,
    quantiles: Path | None = None,
    others: dict | None = None,
    schedules: dict | None = None,
    chosen: Path | None = None,
    autoencoder: dict | None = None,
    data: Path = Path("data"),
    precision: str = "float32",
    compiled: bool = False,
) -> str:
    """Time every setting of the grid side by side in this process. Writes records to --out.

    --grid is JSON: a list of pairs [sampler, [settings]]. The samplers, --conventions, --autoencoder, --precision,
    --others, --schedules, --chosen and --compiled are as in sample_images.py. Nothing else should run on the machine.
    """
    further = {role: Path(path) for role, path in (others or {}).items()}
    measured = measure_cells(
        {"full": full, "shallow": shallow, "heads": heads, "quantiles": quantiles} | further,
        conventions,
        grid,
        batch=batch,
        repeats=repeats,
        threads=threads,
        seed=seed,
        device=device,
        experiment=experiment,
        protocol=protocol,
        train_seed=train_seed,
        autoencoder=load_autoencoder(autoencoder, data, device) if autoencoder else None,
        precision=precision,
        compiled=compiled,
        schedules=Schedules(schedules or {}, chosen),
    )
    records.write(out, measured)
    times = [r.value for r in measured if r.metric == "seconds_per_image"]
    fastest, slowest = 1e3 * min(times), 1e3 * max(times)
    return f"{len(times)} settings, {fastest:.2f} to {slowest:.2f} ms an image, on {measured[0].made['device']}"


if __name__ == "__main__":
    job.run(measure_latency)
