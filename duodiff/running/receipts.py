"""A receipt beside the results for each finished job: what decided its result, what it read and wrote, who made it.

A receipt travels with the results. It tells whether a result is the one a configuration asks for, where Snakemake has
no memory of it. Finished results of costly jobs are also kept in a store of the results' folder, by their identity.
No torch.
"""

import json
import logging
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

from duodiff import identity
from duodiff.clutter import clutter
from duodiff.running import provenance
from duodiff.running.files import atomic, read_json, sha256, write_json

log = logging.getLogger("duodiff")

RECEIPTS = Path("results/receipts")
STORE = Path("results/.store")

_PINNED_BESIDE = (".npy", "/model.safetensors")
"""Arrays and weights: a manifest beside them holds their hashes."""


@dataclass(frozen=True)
class Plan:
    """What a job is to do: its work, the identity of this work, its files, and whether its result is kept in the store.

    `work` is the function of the job, `options` are the arguments that decide its result. The path of the first of
    `outputs` names the receipt. `watched` are files and folders from outside, by the names that they have wherever the
    data lie.
    """

    identity: str
    work: tuple[str, str]
    options: dict
    inputs: list[str]
    outputs: list[str]
    kept: bool = False
    watched: dict[str, str] = field(default_factory=dict)

    @property
    def receipt(self) -> Path:
        """Where the job's receipt lies."""
        return receipt_of(self.outputs[0])

    def key(self) -> str:
        """The digest of what decides the result (the work's identity, the content of its inputs) and of its files."""
        return identity.digest([self.identity, read_inputs(self.inputs), self.outputs])


def begun(work: list[str], options: dict, **files) -> Plan:
    """The plan of a job that begins now. Its identity is that of the code it runs, which is read here."""
    module, name = work
    return Plan(identity.of((module, name), options), (module, name), options, **files)


def receipt_of(output: str | Path) -> Path:
    """The receipt of the job whose first output is `output`."""
    path = Path(output)
    below = path.relative_to("results") if path.is_relative_to("results") else path
    return RECEIPTS / below.with_name(f"{below.name}.json")


def made_by(path: str | Path) -> str:
    """The end of a message that a file is missing: the command that makes it. Empty for a file that is no result."""
    below = Path(os.path.relpath(path))
    if not below.is_relative_to("results"):
        return ""
    return (
        f"; if it was removed to save disk: snakemake --cores all {shlex.quote(str(below))}"
        " (with the --configfile of the run)"
    )


def fetched(plan: Plan) -> list[str]:
    """Those inputs of a job that say that something from outside was fetched, and hold nothing else of it."""
    found = []
    for path in plan.inputs:
        with suppress(OSError, ValueError):
            if read(receipt_of(path))["watched"] and Path(path).name != "manifest.json":
                found.append(path)
    return found


def read(path: str | Path) -> dict:
    """The receipt in a file. Raises ValueError naming the file if it is damaged, FileNotFoundError if there is none."""
    receipt = read_json(path)
    if not isinstance(receipt, dict) or not receipt.keys() >= KEYS:
        raise ValueError(f"{path}: damaged, it is no receipt")
    return receipt


KEYS = {"identity", "code", "options", "inputs", "outputs", "watched", "finished"}


def content(path: str | Path) -> str:
    """The digest of a file's content. Of JSON it is the digest of its meaning, without what is said of its making.

    Of a folder it is the digest of what its files contain, by their paths.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return identity.digest({str(file.relative_to(path)): content(file) for file in files})
    if path.suffix != ".json":
        return sha256(path)
    return identity.digest(provenance.without(read_json(path)))


def read_inputs(paths: list[str]) -> dict[str, str]:
    """The content of each input by its path, without arrays and weights: a manifest beside them holds their hashes."""
    return {p: content(p) for p in sorted(paths) if not p.endswith(_PINNED_BESIDE)}


def write(plan: Plan) -> None:
    """Writes the receipt of a job that has finished."""
    outputs = {path: _described(path) for path in plan.outputs}
    known = _known(plan)
    write_json(
        plan.receipt,
        {
            "identity": plan.identity,
            "key": plan.key() if plan.kept else None,
            "code": identity.code(plan.work, plan.options),
            "options": plan.options,
            "inputs": read_inputs(plan.inputs),
            "outputs": outputs,
            "watched": {
                name: fingerprint(Path(path), known.get(name, {}))
                for name, path in plan.watched.items()
            },
            "made": provenance.commit(),
            "finished": time.time(),
        },
    )
    if plan.kept:
        _keep(plan, list(outputs))


def _known(plan: Plan) -> dict[str, dict]:
    """Fingerprints of a job's watched files that the receipts of its inputs hold, and its own receipt of before."""
    known: dict[str, dict] = {}
    if plan.watched:
        for file in [plan.receipt, *map(receipt_of, plan.inputs)]:
            with suppress(OSError, ValueError):
                known |= read(file)["watched"]
    return known


def _described(path: str) -> dict:
    if Path(path).is_dir():
        return {"folder": True}
    return {"bytes": os.path.getsize(path), "sha256": sha256(path)}


# --- the store of finished results


def take(plan: Plan, write_files: bool = True) -> bool:
    """Whether the store has the result that `plan` asks for; its files are then put in their places.

    Files that are not what their receipt says are not taken.
    """
    if not plan.kept or not (folder := STORE / plan.key()).is_dir():
        return False
    try:
        receipt = read(folder / "receipt.json")
    except (OSError, ValueError) as error:
        log.warning("%s; the result is computed again", error)
        return False
    kept = {path: folder / str(i) for i, path in enumerate(receipt["outputs"])}
    if [*map(Path, kept)] != [*map(Path, plan.outputs)] or not all(
        file.exists() and sha256(file) == receipt["outputs"][path]["sha256"]
        for path, file in kept.items()
    ):
        log.warning("%s: not what its receipt says; it is computed again", folder)
        return False
    if write_files:
        for path, file in kept.items():
            _link(file, Path(path))
        # not before its inputs, of which one may have been made again with the same content
        finished = max([receipt["finished"], *map(_finished, plan.inputs)])
        now = {"inputs": read_inputs(plan.inputs), "key": plan.key(), "finished": finished}
        write_json(plan.receipt, receipt | now)
        set_times(receipt | now)
    return True


def _finished(path: str) -> float:
    """When a file was finished: as its receipt says if it has its own, since a run gives what it makes new times."""
    try:
        return read(receipt_of(path))["finished"]
    except (OSError, ValueError):
        return os.stat(path).st_mtime


def _keep(plan: Plan, outputs: list[str]) -> None:
    """Puts a result into the store. A kill leaves a folder with a hidden name, which `unneeded` finds."""
    folder = STORE / plan.key()
    half = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    half.mkdir(parents=True)
    for i, path in enumerate(outputs):
        _link(Path(path), half / str(i))
    shutil.copyfile(plan.receipt, half / "receipt.json")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(half, folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(half)  # another process had the same job, and was first


def _link(source: Path, target: Path) -> None:
    """Gives `target` the content of `source`, by a hard link where the file system has them.

    Two names of one file are safe here: a file is never written in place, but replaced by another (`files.atomic`).
    """
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def unneeded(results: Path) -> dict[Path, str]:
    """What no result at hand needs, with what it is: results of other identities, states of finished trainings."""
    receipts = results / RECEIPTS.name
    keys = {receipt.get("key") for _, receipt in _readable(receipts)}
    found = {}
    for folder in sorted((results / STORE.name).glob("*")):
        if folder.name not in keys:
            found[folder] = _result_in(folder)
    for folder in sorted(results.glob("*/*/.resume/*")):
        trained = folder.parents[1] / folder.name.rpartition("-")[0]
        if any((trained / name).exists() for name in _ENDS_OF_TRAINING):
            found[folder] = "the state of a training that has been finished since"
    return found


def remove_others(folders: list[str], wanted: set[str]) -> list[str]:
    """Removes results in these folders of the results that are not `wanted`, with their receipts; their paths.

    A file that is not as its receipt says is somebody's own, and stays.
    """
    removed = []
    for folder in folders:
        for file, receipt in _readable(RECEIPTS / folder):
            outputs = receipt["outputs"]
            if outputs.keys() & wanted:
                continue
            for path, described in outputs.items():
                if Path(path).is_file() and _described(path) == described:
                    Path(path).unlink()
                    removed.append(path)
            file.unlink()
    return removed


# Files that a training writes at its end: a network's, an autoencoder's. Snakemake removes them before it trains again.
_ENDS_OF_TRAINING = ("manifest.json", "config.json")


def _readable(folder: Path) -> Iterator[tuple[Path, dict]]:
    """The receipts below a folder. Damaged ones are named, and left out."""
    for path in sorted(folder.rglob("*.json")):
        try:
            yield path, read(path)
        except ValueError as error:
            log.warning("%s; it counts as none", error)


def _result_in(folder: Path) -> str:
    """What a folder of the store is."""
    try:
        return (
            f"a result of another identity: {next(iter(read(folder / 'receipt.json')['outputs']))}"
        )
    except (OSError, ValueError):
        return "a damaged result, or half of one"


def size_of(folder: Path) -> int:
    """The bytes of a folder's files that no other folder shares."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(found.st_size for found in files if found.st_nlink == 1)


# --- what a receipt tells


def differences(receipt: dict, work: tuple[str, str], options: dict) -> Iterator[str]:
    """What decided a receipt's result otherwise than now: options by their keys, definitions of code by their names."""
    yield from _changes("", receipt["options"], options)
    before, now = receipt["code"], identity.code(work, options)
    # The digest of a definition holds its name and not its module: one that has moved is in both.
    same = {*before.values()} & {*now.values()}
    yield from sorted(k for k in before | now if not {before.get(k), now.get(k)} - {None} <= same)


def _changes(key: str, before, now) -> Iterator[str]:
    """The values that differ between two options, by the keys that lead to them."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before | now):
            yield from _changes(f"{key}.{name}".strip("."), before.get(name), now.get(name))
    elif identity.canonical(before) != identity.canonical(now):
        yield f"{key}: {json.dumps(before)} is now {json.dumps(now)}"


def changed_inputs(receipt: dict) -> list[str]:
    """The inputs that are there and have another content than the receipt's job read."""
    return [
        path
        for path, digest in receipt["inputs"].items()
        if Path(path).exists() and _content_now(path, *_stat(path)) != digest
    ]


def other_inputs(receipt: dict, paths: list[str]) -> list[str]:
    """The inputs that a job would read and has not, and those it has read and would not. Shards are left out.

    How many shards there are decides no result, and their parts are gone once they are joined.
    """
    now = {path for path in paths if not path.endswith(_PINNED_BESIDE)}
    changed = sorted(now ^ receipt["inputs"].keys())
    return [
        f"{path} is {'a new input' if path in now else 'no input now'}"
        for path in changed
        if _SHARDS not in path
    ]


_SHARDS = "/shards/"


def _stat(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@cache
def _content_now(path: str, size: int, mtime_ns: int) -> str:
    return content(path)


def set_times(receipt: dict) -> None:
    """Gives a job's outputs the time at which they were finished, whatever a copy has made of it."""
    for path in receipt["outputs"]:
        if Path(path).exists() and abs(os.stat(path).st_mtime - receipt["finished"]) > 1e-3:
            os.utime(path, (receipt["finished"], receipt["finished"]))


# --- what comes from outside


_MOST_FILES = 100_000


def fingerprint(path: Path, known: Mapping[str, list] = {}) -> dict[str, list]:
    """[size, time, sha256] of a file, or of each file of a folder by its name; nothing for a path that is missing.

    Of a folder of more than 100,000 files, instead, the times of its folders. `known` is a fingerprint of before: a
    file whose size and time are as there is not read again.
    """
    files = list(islice(_listed(path), _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        return {name: [size, time, ""] for name, size, time in _listed(path, folders_alone=True)}
    found = {}
    for name, size, mtime_ns in files:
        before = known.get(name, [])
        same = before[:2] == [size, mtime_ns] and before[2]
        found[name] = [size, mtime_ns, before[2] if same else sha256(path / name)]
    return found


def changed_outside(path: Path, before: Mapping[str, list]) -> tuple[list[str], dict[str, list]]:
    """What changed of a watched file or folder since its fingerprint `before`; and its fingerprint now.

    A file whose size and time are as before is not read; one that has another time and the same bytes has not changed.
    A path that is missing has not changed: results need it no more.
    """
    if not path.exists():
        return [], dict(before)
    changes, now = [], {}
    folders_alone = any(name.endswith("/") for name in before)
    for name, size, mtime_ns in _listed(path, folders_alone):
        known = before.get(name)
        now[name] = [size, mtime_ns, known[2] if known else ""]
        if known is None:
            changes.append(f"{path / name} is new")
        elif [size, mtime_ns] != known[:2] and (
            folders_alone or size != known[0] or sha256(path / name) != known[2]
        ):
            changes.append(f"{path / name} has changed")
    gone = [name for name in before if name not in now and not clutter(name)]
    return changes + [f"{path / name} is gone" for name in gone], now


def check_outside(file: Path, watched: Mapping[str, Path], options: dict) -> list[str]:
    """What changed of the files and folders from outside that the job of the receipt in `file` read.

    `watched` are their paths now, by name, and `options` those of the job now: a receipt of other options, and one
    that is damaged, tells nothing, since its job is run again. Times that are new for the same bytes are noted in the
    receipt, so that the bytes are read once.
    """
    try:
        receipt = read(file)
    except (OSError, ValueError):
        return []
    if identity.canonical(receipt["options"]) != identity.canonical(options):
        return []
    changes, now = [], {}
    for name, path in watched.items():
        found, now[name] = changed_outside(path, receipt["watched"].get(name, {}))
        changes += found
    if not changes and now != receipt["watched"]:
        write_json(file, receipt | {"watched": now})
    return changes


def _listed(path: Path, folders_alone: bool = False) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of a file (its name is empty) or of each file below a folder, or of the folders alone.

    A link to a folder is not followed, as in packing. What a system or a NAS leaves there (`duodiff.clutter`) is left
    out: its files come and go by themselves.
    """
    if path.is_file():
        found = path.stat()
        yield "", found.st_size, found.st_mtime_ns
    if not path.is_dir():
        return
    pending = [(str(path), "")]
    while pending:
        folder, prefix = pending.pop()
        if folders_alone:
            yield prefix or "./", 0, os.stat(folder).st_mtime_ns
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if clutter(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                elif not folders_alone and os.path.isfile(entry):  # False for a circle of links too
                    found = entry.stat()
                    yield f"{prefix}{entry.name}", found.st_size, found.st_mtime_ns


# --- results that travel


def give(results: Path, output: Path, folder: Path) -> None:
    """Copies a finished result into `folder`, its files by their names, with its receipt as receipt.json.

    `output` is the first of its files, as a job in the folder around `results` names it.
    """
    receipt = read(results.parent / receipt_of(output))
    folder.mkdir(parents=True, exist_ok=True)
    for path in receipt["outputs"]:
        shutil.copyfile(results.parent / path, folder / Path(path).name)
    write_json(folder / "receipt.json", receipt)


def receive(folder: Path) -> list[str]:
    """Puts a result that `give` has written into the store, where a run that asks for it finds it; its files.

    Raises ValueError where this code would make it otherwise: no run would ask for it.
    """
    receipt = read(folder / "receipt.json")
    module, name = next(iter(receipt["code"])).split(": ")
    if changed := [*differences(receipt, (module, name), receipt["options"])]:
        raise ValueError(
            f"{folder}: made by other code ({', '.join(changed[:3])}); accepted: a result of this code"
        )
    stored = STORE / receipt["key"]
    for i, path in enumerate(receipt["outputs"]):
        with atomic(stored / str(i)) as temporary:
            shutil.copyfile(folder / Path(path).name, temporary)
    write_json(stored / "receipt.json", receipt)
    return [*receipt["outputs"]]
