"""Commands: sample and describe a study's folder, results/<experiment>/train<seed>; the cost of a configuration;
compare a run with the shipped study.
"""

import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from duodiff.identity import ROOT
from duodiff.running import job, receipts
from duodiff.running.files import read_json, write_csv
from duodiff.schedules import timesteps
from duodiff.settings import Setting
from duodiff.study.folder import Study

log = logging.getLogger("duodiff")

SHIPPED_STUDY = ROOT / "report/study"
"""The study that comes with this package."""


def sample(
    folder: Path,
    /,
    out: Path,
    *,
    t_s: int | None = None,
    theta: str | None = None,
    schedule: str | None = None,
    sampler: str = "ddpm",
    steps: int | None = None,
    eta: float | None = None,
    guidance: float | None = None,
    classes: list[str] | None = None,
    images: int = 64,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    pngs: bool = False,
) -> str:
    """Sample images from the checkpoints of a study's folder, results/<experiment>/train<seed>.

    The setting is one of --t-s, --theta and --schedule. With the sampler, batch, seed and number of threads of the
    study's own samples, the images are the same, bit for bit. Pictures of an earlier call in --out are removed.

    - `folder`: results/<experiment>/train<seed> of a run
    - `out`: the folder to write: grid.png, images.npy, labels.npy, blocks_run.npy and manifest.json
    - `t_s`: DuoDiff: the shallow backbone runs the first T_S of 1000 timesteps; 0 is the full backbone, 1000 the
      shallow one
    - `theta`: AdaDiff: the exit threshold, such as 0.12, or a quantile of the uncertainties, such as q0.4
    - `schedule`: a schedule by its name, with the networks and intervals that the study's samples have
    - `sampler`: ddpm, ddim or dpm_solver_pp
    - `steps`: timesteps of the sampler, 2 to 1000; by default as in the study
    - `eta`: noise of ddim, 0 to 1; by default as in the study
    - `guidance`: scale of classifier-free guidance, 0 for none; by default as in the study
    - `classes`: the classes to sample, in turn, by number or name; by default all
    - `images`: how many images
    - `batch`: images computed at once; by default the study's, or fewer where fewer images are wanted
    - `seed`: of the noise
    - `device`: cpu or cuda
    - `pngs`: also write each image, to images/000000.png and so on in --out

    Example: python -m duodiff sample results/digits/train0 --t-s 500 --out out
    """
    setting = _setting(t_s, theta, schedule)
    _at_least_1("images", images)
    study = Study(folder)
    if schedule is not None:
        setting = study.schedule(schedule, sampler)
        if steps is not None and setting.named_schedule.timesteps is not None:
            raise ValueError(
                f"steps: found {steps} for {setting}, which has timesteps of its own; accepted: no --steps"
            )
    options = study.sampler(sampler, steps, eta, guidance)
    timesteps(options["steps"])  # raises ValueError for a wrong number of steps
    _at_least_1("batch", batch := min(images, study.batch) if batch is None else batch)
    paths, codec = study.models(setting), study.autoencoder()
    if theta is not None and options.get("guidance"):
        raise ValueError(
            f"theta: the samples of {folder} are guided, early exit is not; accepted: --t-s, or --guidance 0"
        )
    backbone = paths[setting.networks[0]]
    if guidance and not read_json(backbone)["null_class"]:
        raise ValueError(
            f"guidance: found {guidance} for networks that were trained without label dropout; accepted: 0"
        )
    labels = None if classes is None else study.labels(classes, backbone)
    _check_out(out, folder)

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
    _remove_pictures(out)
    if batch != study.batch:
        log.info("batches of %d; the study's own samples: --batch %d", batch, study.batch)
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
        classes=labels,
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
    """List the checkpoints in a study's folder, its samples by sampler and setting, and files that are missing.

    - `folder`: results/<experiment>/train<seed> of a run
    """
    return Study(folder).describe()


def choose(
    folder: Path,
    /,
    *,
    budget: float | None = None,
    loss: float | None = None,
    by: Literal["switch", "networks", "steps"] = "networks",
    sampler: Literal["ddpm", "ddim"] = "ddpm",
    steps: int | None = None,
    score: str = "A*",
) -> str:
    """Choose the schedule for a budget of operations, or for a loss, from a study's held-out losses without sampling.

    Prints the configuration lines that run it. Their comments say what it costs, and what share of the shallow
    backbone's loss is predicted, with a 95% interval (docs/choice.md). It chooses among the networks of the profile.

    - `folder`: results/<experiment>/train<seed> of a run
    - `budget`: the most operations, over those of the full backbone at the sampler's own steps
    - `loss`: in place of a budget, the largest predicted share; the cheapest schedule is chosen
    - `by`: switch chooses one t_s, networks the network of each step, steps the steps and their networks
    - `sampler`: ddpm, or ddim without noise
    - `steps`: the sampler's own steps; by default as in the study's samples
    - `score`: A*, A, B, C or N; for ddim Gram, too, which needs the profile's displacements

    Example: python -m duodiff choose results/digits/train0 --budget 0.7 > chosen.yaml
    """
    from duodiff.analysis import choices

    if (budget is None) == (loss is None):
        raise ValueError("accepted: one of --budget and --loss")
    for name, value in (("budget", budget), ("loss", loss)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: found {value}; accepted: 0 to 1")
    if sampler == "ddim" and by == "steps":
        raise ValueError("by: found steps; accepted for ddim: switch, networks")
    profile = choices.of_study(folder)
    options = choices.sampler_of(folder, sampler, steps)
    scored = profile.scored(options, score)
    chosen = choices.choose(scored, choices.Wanted(by, operations=budget, loss=loss))
    text, line = choices.told(chosen, profile, scored.t, options, folder)
    print(text, end="")
    return line


def cost(
    config: Path = Path("config/config.yaml"), bench: Path | None = None, gpu: str | None = None
) -> str:
    """Estimate the cost of a configuration: operations, jobs, disk, and with --gpu or --bench hours.

    Prints a table with a row for each experiment and dataset. EFLOP are 10^18 operations, PFLOP 10^15, TFLOP 10^12; a
    multiply-add counts as two. `disk GB` is the size of the results, without downloads. `peak GB` is further space that
    one training or encoding needs while it runs.

    - `config`: the configuration file
    - `bench`: hours at the rates that `make bench` measured on the device in question: its record
    - `gpu`: hours on a GPU by its name: H100 by the rates measured on one, another such as A100 by a rough estimate

    Example: python -m duodiff cost --config config/paper.yaml --gpu A100
    """
    from duodiff.analysis import cost  # pandas takes a second

    return cost.describe(config, bench, gpu)


def verify(
    results: Path = Path("results"),
    /,
    study: Path = SHIPPED_STUDY,
    out: Path | None = None,
    brief: bool = False,
) -> str:
    """Compare a run with the shipped study: is another training of the same code, on this machine, inside its spread?

    Six named quantities decide: the distances of the full and of the shallow backbone, those of DuoDiff and of AdaDiff,
    AdaDiff's exits, and the speed-ups. Every cell and every verdict on a claim is listed, inside or outside. The exit
    code is 0 if the named quantities are inside, else 1. Times on another processor than the study's, and disturbed
    ones, decide nothing.

    - `results`: the results of a run
    - `study`: the folder of the study to compare with
    - `out`: also write every number with its interval to this CSV file
    - `brief`: list no numbers and verdicts, only what the study says first, and whether the run agrees
    """
    from duodiff.analysis import shipped, shipped_page, verify  # pandas takes a second

    studies, config = shipped.read(study), shipped.configuration(results)
    folders = [path for path in shipped.trainings(results) if path.parent.name in studies]
    if not folders:
        raise ValueError(f"{results}: found none of the shipped experiments {', '.join(studies)}")
    share, found = verify.FALSE_ALARMS / len(folders), []
    alarms: dict[tuple[str, int], list[str]] = {}
    for folder in folders:
        training = shipped.read_training(folder)
        comparison = verify.compare(training, studies[folder.parent.name], config, share)
        trainings = len(studies[folder.parent.name].halves[shipped.USUAL])
        if not brief:
            log.info("%s", "\n".join(verify.listed(comparison, trainings)))
        found.append(comparison)
    told = shipped.verdicts(results, config)
    for name in dict.fromkeys(folder.parent.name for folder in folders):
        alarms |= verify.leave_one_out(studies[name])
        mine = told.get(name, {})
        if not brief:
            lines = verify.listed_verdicts(mine, studies[name])
            log.info("%s", "\n  ".join([f"{name}, verdicts of claims", *lines]))
        log.info("%s", "\n  ".join(shipped_page.beside(studies[name], mine)))
    if out is not None:
        write_csv(out, [verify.row(c, line) for c in found for line in c.lines])
    line = verify.summed(found, alarms)
    if any(comparison.outside() for comparison in found):
        log.info("verify: %s", line)
        sys.exit(1)
    return line


def ship(
    usual: Path, /, other: Path | None = None, out: Path = SHIPPED_STUDY, records: bool = False
) -> str:
    """Write the small records of a finished study of several trainings as `verify` reads them, and its networks.

    - `usual`: the results of the study
    - `other`: the results of the same study under other kernels of the processor, with all or some of its trainings
    - `out`: the folder to write; what is in it is removed
    - `records`: the records alone, without the networks
    """
    from duodiff.analysis import shipped, shipped_page
    from duodiff.plotting import front

    halves = {shipped.USUAL: usual} | ({shipped.OTHER: other} if other else {})
    line = shipped.write(halves, out, networks=not records)
    shipped_page.write(out)
    front.draw_shipped(out)
    return line


def networks(study: Path = SHIPPED_STUDY) -> str:
    """Put the shipped networks into the store of finished results: a run then takes them and trains none of them.

    - `study`: the folder of the study that has them
    """
    folders = sorted(study.glob("*/networks/*"))
    if not folders:
        raise FileNotFoundError(
            f"{study}: found no */networks/*; accepted: a folder that ship wrote"
        )
    files = [receipts.receive(folder)[0] for folder in folders]
    return f"{len(files)} networks: {', '.join(files)}"


def clean(results: Path = Path("results"), remove: bool = False) -> str:
    """List what no result at hand needs, with sizes; remove it with --remove.

    These are results of other identities in the store, and states of trainings that have been finished since.

    - `results`: the folder of the results
    - `remove`: remove what is listed
    """
    folders = receipts.unneeded(results)
    sizes = {folder: receipts.size_of(folder) for folder in folders}
    for folder, what in folders.items():
        log.info("%8.1f MB  %s  %s", sizes[folder] / 1e6, folder, what)
        if remove:
            shutil.rmtree(folder)
    done = "removed" if remove else "found; --remove removes them"
    return f"{len(folders)} folders, {sum(sizes.values()) / 1e6:.1f} MB, {done}"


def _check_out(out: Path, folder: Path) -> None:
    """Raises ValueError if samples in `out` would replace results of a run."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"out: found {out}, inside the study; accepted: a folder elsewhere")
    manifest = out / "manifest.json"
    of_samples = not manifest.exists() or "sampler" in read_json(manifest)
    if not of_samples or receipts.receipt_of(os.path.relpath(manifest)).exists():
        raise ValueError(f"out: found {out}, a result of a run; accepted: a folder elsewhere")


def _remove_pictures(out: Path) -> None:
    """Removes the pictures of an earlier call, which its manifest in the folder `out` counts. Arrays are replaced."""
    if not (out / "manifest.json").exists():
        return
    (out / "grid.png").unlink(missing_ok=True)
    for i in range(read_json(out / "manifest.json").get("count", 0)):
        (out / f"images/{i:06d}.png").unlink(missing_ok=True)
    with suppress(OSError):  # none, or with files of someone else
        (out / "images").rmdir()


def _setting(t_s: int | None, theta: str | None, schedule: str | None) -> Setting:
    given = {"t_s": t_s, "theta": theta, "schedule": schedule}
    found = [Setting.of(key, value) for key, value in given.items() if value is not None]
    if len(found) != 1:
        raise ValueError("setting: accepted: one of --t-s, --theta and --schedule")
    return found[0]


def _at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: found {value}; accepted: 1 or more")


if __name__ == "__main__":
    job.run_one_of(
        [sample, info, choose, cost, verify, ship, networks, clean], "python -m duodiff", __doc__
    )
