from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.data import families
    from duodiff.running.files import write_json


def fetch_dataset(dataset: dict, data: Path, out: Path) -> str:
    """Check that a dataset's files are in place. Missing files are downloaded where this is possible.

    --dataset is the JSON of one entry of the configuration's `datasets`; its path is relative to --data. The receipt
    --out names the files, their bytes, and their sha256 if it was verified.

    Example: python workflow_scripts/fetch_dataset.py --data data --out results/cifar10/receipt.json \\
               --dataset '{"source": "cifar10", "path": "cifar10", "held_out": 1000}'
    """
    receipt = families.fetch_dataset(dataset, data)
    write_json(out, receipt)
    return ", ".join(file["name"] for file in receipt["files"]) or "no files needed"


if __name__ == "__main__":
    job.run(fetch_dataset)
