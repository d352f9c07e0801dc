from pathlib import Path

from duodiff import job
from duodiff.data.latents import encode_store


def encode_latents(images: Path, autoencoder: dict, data: Path, device: str, out: Path) -> str:
    """Encode a store of images into a store of the moments of their latents, whose manifest is --out.

    --autoencoder is the JSON of that section of the configuration, --data the folder its path is under.
    An interrupted run is continued.

    Example: python workflow_scripts/encode_latents.py --images results/data/imagenet256/manifest.json \\
               --autoencoder '{"path": "weights/autoencoder_kl.pth", "sha256": null, "batch": 32}' \\
               --data data --device cuda --out results/data/imagenet256/latents/manifest.json
    """
    manifest = encode_store(images, autoencoder, data, autoencoder["batch"], device, out)
    return f"{manifest['count']} latents of {manifest['shape']}, scale {manifest['scale']}"


if __name__ == "__main__":
    job.run(encode_latents)
