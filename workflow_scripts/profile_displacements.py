from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.metrics.displacements import write_displacements
    from duodiff.sampling.models import Models


def profile_displacements(
    conventions: dict,
    protocol: str,
    full: Path,
    shallow: Path,
    sampler: dict,
    networks: dict,
    batch: int,
    seed: int,
    device: str,
    out: Path,
    heads: Path | None = None,
    others: dict | None = None,
    precision: str = "float32",
) -> str:
    """Measure how other networks at single steps move the images of a sampler without noise. Writes --out.

    --networks are further networks beside the shallow backbone: {"middle": {"depth": 5}, "early": {"exit": 4}}.
    --seed is the training seed. --sampler, --precision and --others are as in sample_images.py.
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
    return write_displacements(models, sampler, networks, batch=batch, seed=seed, out=out)


if __name__ == "__main__":
    job.run(profile_displacements)
