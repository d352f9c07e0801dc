from pathlib import Path

from duodiff.running import job

with job.importing():
    from duodiff.sampling.export import write_npz, write_pngs


def export_samples(samples: Path, out: Path) -> str:
    """Write a sample store to --out: a .npz for the ADM evaluator, or a folder of PNGs if --out has no suffix."""
    write = write_npz if out.suffix == ".npz" else write_pngs
    return f"{write(samples, out)} images to {out}"


if __name__ == "__main__":
    job.run(export_samples)
