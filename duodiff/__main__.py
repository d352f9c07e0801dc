"""Commands: sample and describe a study's folder, results/<experiment>/train<seed>; the cost of a configuration."""

import logging
import shutil
from pathlib import Path

from duodiff.running import job, receipts
from duodiff.schedules import timesteps
from duodiff.settings import Setting
from duodiff.study.folder import Study

log = logging.getLogger("duodiff")


def sample(
    folder: Path,
    /,
    out: Path,
    *,
    t_s: int | None = None,
    theta: str | None = None,
    sampler: str = "ddpm",
    steps: int | None = None,
    eta: float | None = None,
    images: int = 64,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    pngs: bool = False,
) -> str:
    """Sample images from the checkpoints of a study's folder, results/<experiment>/train<seed>.

    The setting is one of --t-s (DuoDiff: 0 is the full backbone, 1000 the shallow one) and --theta (AdaDiff: 0.12, or
    a quantile such as q0.4). --sampler is a sampler of config/schema.yaml, such as ddim. --steps, --eta and --batch are
    by default those of the study's own samples. With the seed and the number of threads of these samples, the images
    are the same, bit for bit. Writes the folder --out: grid.png, images.npy, labels.npy and a manifest; with --pngs
    every image too.

    Example: python -m duodiff sample results/digits/train0 --t-s 500 --out out
    """
    setting = _setting(t_s, theta)
    _at_least_1("images", images)
    study = Study(folder)
    options = study.sampler(sampler, steps, eta)
    timesteps(options["steps"])  # raises ValueError for a wrong number of steps
    _at_least_1("batch", batch := study.batch if batch is None else batch)
    paths, codec = study.models(setting), study.autoencoder()
    if theta is not None and options.get("guidance"):
        raise ValueError(
            f"theta: the samples of {folder} are guided, early exit is not; accepted: --t-s"
        )

    # These are slow to import: errors in the arguments come first.
    import numpy as np

    from duodiff.autoencoder import load
    from duodiff.data.pictures import grid, write_png
    from duodiff.sampling.export import write_pngs
    from duodiff.sampling.models import Models
    from duodiff.sampling.samples import write_samples

    models = Models(
        study.conventions,
        study.protocol,
        **paths,
        device=device,
        precision=study.precision,
        compiled=study.compiled,
    )
    manifest = write_samples(
        out / "manifest.json",
        models,
        sampler=options,
        setting=setting,
        images=images,
        batch=batch,
        seed=seed,
        experiment=study.experiment,
        train_seed=study.train_seed,
        autoencoder=load(codec, Path(), device) if codec else None,
    )
    write_png(out / "grid.png", grid(np.load(out / "images.npy"), round(images**0.5)))
    if pngs:
        write_pngs(out / "manifest.json", out / "images")
    blocks = np.load(out / "blocks_run.npy").mean()
    return (
        f"{images} images by {manifest['method']} ({setting}), {manifest['nfe']} calls of {blocks:.2f} blocks"
        f" on {manifest['made']['device']}"
    )


def info(folder: Path, /) -> str:
    """List the checkpoints in a study's folder, and its samples by sampler and setting."""
    return Study(folder).describe()


def cost(config: Path = Path("config/config.yaml"), bench: Path | None = None) -> str:
    """Estimate the cost of a configuration: operations, GPU jobs, disk, and with --bench GPU-hours.

    Prints a table with a row for each experiment and dataset. EFLOP are 10^18 operations; a multiply-add counts as two.
    `disk GB` is the size of the results, without downloads. `peak GB` is further space that one training or encoding
    needs while it runs. --bench is the record that `make bench` wrote on the GPU in question.

    Example: python -m duodiff cost --config config/paper.yaml --bench results/bench/bench.json
    """
    from duodiff.analysis import cost  # pandas takes a second

    return cost.describe(config, bench)


def clean(results: Path = Path("results"), remove: bool = False) -> str:
    """List what no result at hand needs, with sizes; remove it with --remove.

    These are results of other identities in the store, and states of trainings that have been finished since.
    """
    folders = receipts.unneeded(results)
    sizes = {folder: receipts.size_of(folder) for folder in folders}
    for folder, what in folders.items():
        log.info("%8.1f MB  %s  %s", sizes[folder] / 1e6, folder, what)
        if remove:
            shutil.rmtree(folder)
    done = "removed" if remove else "found; --remove removes them"
    return f"{len(folders)} folders, {sum(sizes.values()) / 1e6:.1f} MB, {done}"


def _setting(t_s: int | None, theta: str | None) -> Setting:
    if t_s is not None and theta is None:
        return Setting.of("t_s", t_s)
    if theta is not None and t_s is None:
        return Setting.of("theta", theta)
    raise ValueError("setting: accepted: one of --t-s and --theta")


def _at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: found {value}; accepted: 1 or more")


if __name__ == "__main__":
    job.run_one_of([sample, info, cost, clean], "python -m duodiff", __doc__)
