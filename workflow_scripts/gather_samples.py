from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.sampling import gather as samples


def gather_samples(shards: list[Path], images: int, out: Path) -> str:
    """Join the shards of a cell, in their order, into one store of --images samples with the manifest --out."""
    manifest = samples.gather_samples(shards, images, out)
    return f"{manifest['count']} images of {manifest['shape']} from {len(shards)} shards"


if __name__ == "__main__":
    job.run(gather_samples)
