from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.autoencoder import WEIGHTS, saved_config, weights_file
    from duodiff.running.files import write_json


def fetch_autoencoder(autoencoder: dict, data: Path, out: Path) -> str:
    """Check that an autoencoder's files are in place, or download them from the hub. Writes the receipt --out.

    --autoencoder is the JSON of the dataset's `autoencoder` in the configuration; its path is relative to --data.
    """
    file, sha256 = weights_file(autoencoder, data)
    if file.name == WEIGHTS:  # of a folder
        saved_config(file.with_name("config.json"), autoencoder)
    write_json(out, {"file": file.name, "sha256": sha256})
    return f"{file}: sha256 {sha256}"


if __name__ == "__main__":
    job.run(fetch_autoencoder)
