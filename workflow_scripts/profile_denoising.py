from pathlib import Path

from duodiff import job
from duodiff.metrics.denoising import write_profile


def profile_denoising(
    data: Path,
    full: Path,
    shallow: Path,
    heads: Path,
    timesteps: int,
    seed: int,
    device: str,
    losses: Path,
    quantiles: Path,
) -> str:
    """Profile the held-out losses of full, shallow and every early-exit head over t, and the uncertainties.

    Writes a table (--losses) and the quantiles of all observed uncertainties (--quantiles).
    """
    return write_profile(data, full, shallow, heads, timesteps, seed, device, losses, quantiles)


if __name__ == "__main__":
    job.run(profile_denoising)
