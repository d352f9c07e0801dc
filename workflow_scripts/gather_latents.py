from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data.latents import gather


def gather_latents(images: Path, shards: list[Path], out: Path) -> str:
    """Join all encoded shards of a store of images, in their order, into one store with the manifest --out."""
    manifest = gather(images, shards, out)
    return f"{manifest['count']} latents of {manifest['shape']}, scale {manifest['scale']:.5g}"


if __name__ == "__main__":
    job.run(gather_latents)
