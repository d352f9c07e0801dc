from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data.latents import encode_shard


def encode_latents(
    images: Path, autoencoder: dict, data: Path, device: str, shard: int, shards: int, out: Path
) -> str:
    """Encode one shard of a store of images. Writes the moments of the latents, and their description to --out.

    --autoencoder is the JSON of the dataset's `autoencoder` in the configuration; its path is relative to --data.
    --shard is a number from 0 to --shards - 1. An interrupted run is continued.

    Example: python workflow_scripts/encode_latents.py --images results/data/imagenet256/manifest.json \\
               --autoencoder '{"path": "weights/sd-vae-ft-ema", "sha256": null, "batch": 8, "flips": false}' \\
               --data data --device cuda --shard 0 --shards 1 --out results/data/imagenet256/latents/shards/0-of-1.json
    """
    encoded = encode_shard(images, autoencoder, data, device, out, shard=shard, shards=shards)
    first, end = encoded["range"]
    return (
        f"images {first} to {end - 1}, latents of {encoded['shape']}, scale {encoded['scale']:.5g}"
    )


if __name__ == "__main__":
    job.run(encode_latents)
