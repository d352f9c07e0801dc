from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.autoencoder import load as load_autoencoder
    from duodiff.sampling.models import Models
    from duodiff.sampling.samples import write_samples
    from duodiff.settings import Schedules


def sample_images(
    experiment: str,
    protocol: str,
    conventions: dict,
    sampler: dict,
    setting: str,
    images: int,
    batch: int,
    train_seed: int,
    seed: int,
    device: str,
    out: Path,
    full: Path | None = None,
    shallow: Path | None = None,
    heads: Path | None = None,
    quantiles: Path | None = None,
    others: dict | None = None,
    schedules: dict | None = None,
    chosen: Path | None = None,
    autoencoder: dict | None = None,
    data: Path = Path("data"),
    shard: int = 0,
    shards: int = 1,
    precision: str = "float32",
    compiled: bool = False,
) -> str:
    """Generate the images of one grid cell, or of one shard of a cell. Writes a sample store with the manifest --out.

    --setting is t_s=N (DuoDiff; 0 is the full backbone, 1000 the shallow backbone), theta=X or theta=qX (AdaDiff),
    or schedule=NAME. --schedules is the JSON of the schedule: {NAME: {"intervals": [["shallow", 500, 999], ["full", 0,
    499]], "timesteps": [999, 500, 0]}}. Without intervals, the file --chosen has them.
    --others is the JSON of further backbones: their manifests by name.
    --sampler is JSON: {"name": "ddpm", "steps": 100} or {"name": "ddim", "steps": 50, "eta": 0} or
    {"name": "dpm_solver_pp", "steps": 20}.
    --conventions is JSON: {"schedule": "linear", "time_input": "t", "class_order": null}.
    --autoencoder is the JSON of the dataset's `autoencoder` in the configuration; its path is relative to --data.
    Only the checkpoints that the setting uses need to be given. --shard is a number from 0 to --shards - 1.
    --precision is the type that the networks compute in: float32 or bfloat16. --compiled compiles the backbones.
    """
    backbones = {role: Path(path) for role, path in (others or {}).items()}
    models = Models(
        conventions,
        protocol,
        full=full,
        shallow=shallow,
        heads=heads,
        quantiles=quantiles,
        device=device,
        precision=precision,
        compiled=compiled,
        **backbones,
    )
    manifest = write_samples(
        out,
        models,
        sampler=sampler,
        setting=Schedules(schedules or {}, chosen).setting(setting, sampler["name"]),
        images=images,
        batch=batch,
        seed=seed,
        experiment=experiment,
        train_seed=train_seed,
        autoencoder=load_autoencoder(autoencoder, data, device) if autoencoder else None,
        shard=shard,
        shards=shards,
    )
    made = f"{manifest['count']} images of {manifest['shape']}"
    return f"{sampler['name']} {setting} seed {seed}: {made} by {manifest['method']}"


if __name__ == "__main__":
    job.run(sample_images)
