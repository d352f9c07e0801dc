from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data.pack import pack


def pack_dataset(dataset: dict, data: Path, workers: int, out: Path) -> str:
    """Pack a dataset into a store of uint8 images, split into training and held-out images.

    --dataset is the JSON of one entry of the configuration's `datasets`; its path is relative to --data. --workers is
    the number of processes that decode images.

    Example: python workflow_scripts/pack_dataset.py --dataset '{"source": "digits", "held_out": 360}' \\
               --data data --workers 1 --out results/digits/data/manifest.json
    """
    manifest = pack(dataset, data, workers, out)
    first, end = manifest["splits"]["held_out"]
    skipped = sum(kind["count"] for kind in manifest["skipped"].values())
    ignored = [f"{n} {name}" for name, n in manifest.get("ignored_by_name", {}).items()]
    left_out = ", ".join([f"{skipped} skipped", *["ignored " + ", ".join(ignored)] * bool(ignored)])
    names = manifest["class_names"]
    some = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    classes = f"{len(names)} classes ({some})" if names else "no classes"
    pool = "".join(f" from {n}" for n in manifest.get("split_folders", {}).get("held_out_from", {}))
    counts = f"{end - first} held out{pool}, {left_out}, {classes}"
    return f"{end} images of {manifest['shape']}, {counts}"


if __name__ == "__main__":
    job.run(pack_dataset)
