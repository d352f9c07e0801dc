from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.denoising import write_profile
    from duodiff.sampling.models import Models


def profile_denoising(
    data: Path,
    conventions: dict,
    protocol: str,
    full: Path,
    shallow: Path,
    timesteps: int,
    batch: int,
    seed: int,
    device: str,
    experiment: str,
    losses: Path,
    errors: Path,
    quantiles: Path,
    out: Path,
    heads: Path | None = None,
    others: dict | None = None,
    precision: str = "float32",
    also: list[int] | None = None,
    networks: dict | None = None,
) -> str:
    """Profile the held-out losses of full, shallow and every early-exit head over t, and the uncertainties.

    Writes the table --losses, the quantiles of all observed uncertainties (--quantiles), and records (--out). The
    records compare the losses of the shallow backbone with those of the full backbone. --errors gets the errors of each
    image, at the timesteps --also too, and of further --networks: {"middle": {"depth": 5}, "early": {"exit": 4}}.
    --seed is the training seed. --precision and --others are as in sample_images.py.
    """
    further = {role: Path(path) for role, path in (others or {}).items()}
    models = Models(
        conventions,
        protocol,
        full=full,
        shallow=shallow,
        heads=heads,
        device=device,
        precision=precision,
        **further,
    )
    return write_profile(
        data,
        models,
        n_timesteps=timesteps,
        batch=batch,
        also=also or [],
        networks=networks,
        seed=seed,
        experiment=experiment,
        losses=losses,
        errors=errors,
        quantiles=quantiles,
        out=out,
    )


if __name__ == "__main__":
    job.run(profile_denoising)
