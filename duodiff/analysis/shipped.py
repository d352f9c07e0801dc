"""The shipped study: the numbers of several trainings as small CSV files, that other runs are compared with (no torch).

A folder has, for each experiment:

- `study.json`: its configuration, and for each half its training seeds and what made its results
- `usual/train<seed>.csv`: the numbers of a training, one row a record
- `other_kernels/train<seed>.csv`: the same trainings once more, under other kernels of the processor
- `<half>/chosen<seed>.json`: the schedules that a training chose before it sampled, if its configuration has budgets
- `<half>/verdicts.csv`: the verdict of each claim for each training, and for all of them
- `<half>/claims.csv`: the claims table of all trainings of the half
- `networks/<role>`: the trained networks of one training, with their receipts, if they were asked for
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from duodiff.analysis.cells import load_fewer_steps, load_records
from duodiff.analysis.claims.sources import our_sources
from duodiff.analysis.claims.verdicts import claims_table
from duodiff.running import provenance, receipts
from duodiff.running.files import read_json, read_text, write_csv, write_json
from duodiff.settings import text_of
from duodiff.study.grid import SEEDS_OF_A_TRAINING
from duodiff.study.scale import scale

USUAL, OTHER = "usual", "other_kernels"
"""The halves of a study: as the machine computes by itself, and under other kernels of its processor."""

_RECORDS = (
    "evaluate_samples",
    "measure_latency",
    "profile_denoising",
    "profile_exits",
    "choose_schedules",
)
_CHOSEN = "profile/chosen.json"
_CONFIGURATION = "run/configuration.yaml"
# of the machine's other work, or of settings that need no cell; the claims have it
_UNTRACKED = ("load_seconds", "peak_memory_mb", "resident_memory_mb", "switch_gap")
_OF_CHOICE = ("predicted_share", "switch_gap")


@dataclass(frozen=True)
class Training:
    """One training's numbers, and what made them by role (see `provenance.makers`).

    The columns of `numbers`: metric, value, low, high, n, method, setting (as text), theta, sampler, steps, seed (the
    sampling seed as configured, which is the same in every training) and disturbed.
    """

    experiment: str
    train_seed: int
    numbers: pd.DataFrame
    made: dict[str, list[dict]]


@dataclass(frozen=True)
class Shipped:
    """A shipped study of one experiment: its configuration, and its trainings by half.

    `claims` is the claims table of all usual trainings together (`claims.verdicts.claims_table`). `verdicts` has a row
    a claim: its verdict in each usual training, by seed, and over all of them, in the column all.
    """

    experiment: str
    configuration: dict
    halves: dict[str, list[Training]]
    claims: pd.DataFrame
    verdicts: pd.DataFrame


# --- a run


def trainings(results: Path) -> list[Path]:
    """The folders <experiment>/train<seed> of a run that has evaluated samples, in order. Raises FileNotFoundError."""
    found = [path.parents[1] for path in results.glob("*/train*/records/evaluate_samples.json")]
    if not found:
        raise FileNotFoundError(
            f"{results}: found no */train*/records/evaluate_samples.json; accepted: the results of a run"
        )
    return sorted(found, key=lambda path: (path.parent.name, _seed(path)))


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("train"))


def configuration(results: Path) -> dict:
    """The configuration of a run, as its page shows it; empty where the page is not made yet."""
    path = results / _CONFIGURATION
    return yaml.safe_load(read_text(path)) if path.exists() else {}


def verdicts(results: Path, config: dict) -> dict[str, dict[str, str]]:
    """The verdicts of a run's claims table by claim, for each experiment of its configuration; none without a table."""
    path = results / "tables/claims.csv"
    if not path.exists() or not config:
        return {}
    table = pd.read_csv(path, dtype=str)
    return {
        name: table[table["experiment"] == name].set_index("claim")["verdict"].to_dict()
        for name in config["experiments"]
    }


def read_training(folder: Path) -> Training:
    """One training of a run, from its records."""
    records = [record for path in _record_files(folder) for record in read_json(path)]
    train_seed = _seed(folder)
    rows = [row(record, train_seed) for record in records if record["metric"] not in _UNTRACKED]
    return Training(folder.parent.name, train_seed, pd.DataFrame(rows), _made(records))


def _record_files(folder: Path) -> list[Path]:
    files = [folder / f"records/{name}.json" for name in _RECORDS]
    return [path for path in files if path.exists()]


def row(record: dict, train_seed: int) -> dict:
    """A record of the training with this seed as a row of its `Training.numbers`."""
    parameters, seed = record["parameters"], record["seeds"].get("sample_seed")
    low, high = record["interval"] or (None, None)
    return {
        "metric": record["metric"],
        "value": record["value"],
        "low": low,
        "high": high,
        "n": record["n"],
        "method": record["method"],
        "setting": text_of(parameters),
        "theta": parameters.get("theta"),
        "sampler": record["sampler"] or "",
        "steps": record["steps"],
        "seed": seed - SEEDS_OF_A_TRAINING * train_seed if isinstance(seed, int) else None,
        "disturbed": record.get("disturbed"),
    }


def _made(records: list[dict]) -> dict[str, list[dict]]:
    """What made the records and what they are of, by role: each different one once."""
    found: dict[str, list[dict]] = {}
    for record in records:
        own = "timing" if record["metric"].startswith(("seconds", "speedup")) else "measurements"
        own = "choice" if record["metric"] in _OF_CHOICE else own
        for role, made in provenance.makers(record["made"], own):
            said = {key: value for key, value in made.items() if key not in ("of", "parts")}
            known = found.setdefault(role, [])
            known += [said] if said not in known else []
    return found


def _claims(folders: list[Path], config: dict) -> pd.DataFrame:
    """The claims table of these trainings of one experiment."""
    files = [path for folder in folders for path in _record_files(folder)]
    name = folders[0].parent.name
    chosen = config["experiments"][name]
    studies = {name: chosen | {"scale": scale(chosen)}}
    sources = our_sources(load_records(files), studies, load_fewer_steps(files))
    return claims_table(sources, config["claims"])


# --- the shipped folder


def write(halves: dict[str, Path], out: Path, networks: bool = True) -> str:
    """Writes a study to the folder `out`, which is made anew, from the results of its halves; a one-line summary.

    Without `networks` it gets the records alone.
    """
    config = configuration(halves[USUAL])
    if not config:
        page = halves[USUAL] / _CONFIGURATION
        raise FileNotFoundError(f"{page}: found no such file; accepted: the results of a whole run")
    shutil.rmtree(out, ignore_errors=True)
    lines = []
    for name, chosen in config["experiments"].items():
        said = {
            half: _write_half(out / name / half, _of(results, name), config)
            for half, results in halves.items()
        }
        about = {"experiment": chosen, "dataset": config["datasets"][chosen["dataset"]]}
        write_json(out / name / "study.json", {"configuration": about, "halves": said})
        if networks:
            _give_networks(halves[USUAL], _of(halves[USUAL], name)[0], out / name / "networks")
        counts = [f"{len(found['train_seeds'])} trainings {half}" for half, found in said.items()]
        lines.append(f"{name}: {', '.join(counts)}")
    _copy_tables(halves[USUAL] / "tables", out / "tables")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{'; '.join(lines)}; {size / 1e6:.2f} MB"


def _of(results: Path, experiment: str) -> list[Path]:
    """The folders of an experiment's trainings."""
    return [folder for folder in trainings(results) if folder.parent.name == experiment]


def _write_half(out: Path, folders: list[Path], config: dict) -> dict:
    """Writes the numbers and verdicts of these trainings; what `study.json` says of them."""
    made: dict[str, list[dict]] = {}
    claims = _claims(folders, config).set_index("claim")
    told = {"all": claims["verdict"]}
    for folder in folders:
        training = read_training(folder)
        write_csv(out / f"{folder.name}.csv", training.numbers)
        if (chosen := folder / _CHOSEN).exists():
            shutil.copyfile(chosen, out / f"chosen{training.train_seed}.json")
        told[str(training.train_seed)] = _claims([folder], config).set_index("claim")["verdict"]
        for role, others in training.made.items():
            known = made.setdefault(role, [])
            known += [one for one in others if one not in known]
    write_csv(out / "claims.csv", claims.reset_index())
    write_csv(out / "verdicts.csv", pd.DataFrame(told).reset_index(names="claim"))
    return {"train_seeds": [_seed(folder) for folder in folders], "made": made}


def _give_networks(results: Path, training: Path, out: Path) -> None:
    """Copies the networks of a training, with their receipts."""
    for manifest in sorted(
        (results / training.parent.name / training.name).glob("*/manifest.json")
    ):
        role = manifest.parent.name
        output = Path("results", training.parent.name, training.name, role, "manifest.json")
        receipts.give(results, output, out / role)


def _copy_tables(tables: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(tables.glob("*.csv")):
        shutil.copyfile(path, out / path.name)


def read(folder: Path) -> dict[str, Shipped]:
    """The shipped studies in a folder, by experiment. Raises FileNotFoundError where there is none."""
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/study.json"))}
    if not found:
        raise FileNotFoundError(
            f"{folder}: found no */study.json; accepted: a folder that ship wrote"
        )
    return {name: _read_study(path) for name, path in found.items()}


def _read_study(folder: Path) -> Shipped:
    said = read_json(folder / "study.json")
    halves = {
        half: list(_read_half(folder / half, about)) for half, about in said["halves"].items()
    }
    claims = pd.read_csv(folder / USUAL / "claims.csv")
    told = pd.read_csv(folder / USUAL / "verdicts.csv", dtype=str).set_index("claim")
    return Shipped(folder.name, said["configuration"], halves, claims, told)


def _read_half(folder: Path, about: dict) -> Iterator[Training]:
    for seed in about["train_seeds"]:
        numbers = pd.read_csv(folder / f"train{seed}.csv", keep_default_na=False, na_values=[""])
        texts = {name: numbers[name].fillna("") for name in ("setting", "sampler")}
        numbers = numbers.assign(**texts)
        yield Training(folder.parent.name, seed, numbers, about["made"])
