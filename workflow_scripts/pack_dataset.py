from pathlib import Path

from duodiff import job
from duodiff.data.pack import pack


def pack_dataset(source: str, held_out: int, out: Path) -> str:
    """Pack a dataset into a store of uint8 images, split into training and held-out images.

    Example: python workflow_scripts/pack_dataset.py --source digits --held-out 360 \\
               --out results/digits/data/manifest.json
    """
    manifest = pack(source, held_out, out)
    return f"{manifest['count']} images of {manifest['shape']}, {held_out} held out"


if __name__ == "__main__":
    job.run(pack_dataset)
