from pathlib import Path

from duodiff import job
from duodiff.metrics.denoising import write_profile


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
    losses: Path,
    quantiles: Path,
    heads: Path | None = None,
) -> str:
    """Profile the held-out losses of full, shallow and every early-exit head over t, and the uncertainties.

    Writes a table (--losses) and the quantiles of all observed uncertainties (--quantiles).
    """
    return write_profile(
        data,
        conventions,
        protocol,
        full,
        shallow,
        heads,
        timesteps,
        batch,
        seed,
        device,
        losses,
        quantiles,
    )


if __name__ == "__main__":
    job.run(profile_denoising)
