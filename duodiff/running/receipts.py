"""A receipt beside the results for each finished job: what decided its result, what it read and wrote, who made it.

A receipt travels with the results. It tells whether a result is the one a configuration asks for, where Snakemake has
no memory of it. Finished results of costly jobs are also kept in a store of the results' folder, by their identity.
No torch.
"""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from duodiff import identity
from duodiff.running.files import read_json, sha256, write_json

log = logging.getLogger("duodiff")

RECEIPTS = Path("results/receipts")
STORE = Path("results/.store")

_PINNED_BESIDE = ".npy"  # arrays: a manifest beside them holds their hashes


@dataclass(frozen=True)
class Plan:
    """What the workflow tells a job: the identity of its work, its files, and whether its result is kept in the store.

    `first` is the first of `outputs`, whose path names the receipt. `watched` are files and folders from outside.
    """

    identity: str
    inputs: list[str]
    outputs: list[str]
    kept: bool = False
    watched: list[str] = field(default_factory=list)

    @property
    def receipt(self) -> Path:
        """Where the job's receipt lies."""
        return receipt_of(self.outputs[0])

    def key(self) -> str:
        """The digest of everything that decides the result: the work's identity and the content of its inputs."""
        return identity.digest([self.identity, read_inputs(self.inputs)])


def receipt_of(output: str | Path) -> Path:
    """The receipt of the job whose first output is `output`."""
    path = Path(output)
    below = path.relative_to("results") if path.is_relative_to("results") else path
    return RECEIPTS / below.with_name(f"{below.name}.json")


def content(path: str | Path) -> str:
    """The digest of a file's content. Of JSON it is the digest of its meaning, without what is said of its making."""
    path = Path(path)
    if path.suffix != ".json":
        return sha256(path)
    return identity.digest(_without_making(read_json(path)))


def _without_making(value):
    if isinstance(value, list):
        return [_without_making(item) for item in value]
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "made"}
    return value


def read_inputs(paths: list[str]) -> dict[str, str]:
    """The content of each input by its path; arrays are left out, since a manifest beside them holds their hashes."""
    return {p: content(p) for p in sorted(paths) if not p.endswith(_PINNED_BESIDE)}


def write(plan: Plan, work: tuple[str, str], options: dict) -> None:
    """Writes the receipt of a job that has finished; `work` is its function, `options` are its arguments."""
    outputs = {path: _described(path) for path in plan.outputs}
    write_json(
        plan.receipt,
        {
            "identity": plan.identity,
            "key": plan.key() if plan.kept else None,
            "code": identity.code(work, options),
            "options": options,
            "inputs": read_inputs(plan.inputs),
            "outputs": outputs,
            "watched": {path: fingerprint(Path(path)) for path in plan.watched},
            "made": provenance(),
            "finished": time.time(),
        },
    )
    if plan.kept:
        _keep(plan, list(outputs))


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
    receipt = read_json(folder / "receipt.json")
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
        now = {"inputs": read_inputs(plan.inputs), "key": plan.key()}
        write_json(plan.receipt, receipt | now)
    return True


def _keep(plan: Plan, outputs: list[str]) -> None:
    folder = STORE / plan.key()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for i, path in enumerate(outputs):
        _link(Path(path), folder / str(i))
    shutil.copyfile(plan.receipt, folder / "receipt.json")


def _link(source: Path, target: Path) -> None:
    """Gives `target` the content of `source`, by a hard link where the file system has them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def unneeded(results: Path) -> dict[Path, str]:
    """What no result at hand needs, with what it is: results of other identities, states of finished trainings."""
    receipts = results / RECEIPTS.name
    keys = {read_json(path).get("key") for path in receipts.rglob("*.json")}
    found = {
        folder: "a result of another identity: "
        + next(iter(read_json(folder / "receipt.json")["outputs"]))
        for folder in sorted((results / STORE.name).glob("*"))
        if folder.name not in keys
    }
    for folder in sorted(results.glob("*/*/.resume/*")):
        role = folder.name.rpartition("-")[0]
        below = folder.parents[1].relative_to(results)
        if (receipts / below / role / "manifest.json.json").exists():
            found[folder] = "the state of a training that has been finished since"
    return found


def size_of(folder: Path) -> int:
    """The bytes of a folder's files that no other folder shares."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(found.st_size for found in files if found.st_nlink == 1)


# --- what a receipt tells


def differences(receipt: dict, work: tuple[str, str], options: dict) -> Iterator[str]:
    """What decided a receipt's result otherwise than now: options by their keys, definitions of code by their names."""
    yield from _changes("", receipt["options"], options)
    before, now = _by_name(receipt["code"]), _by_name(identity.code(work, options))
    for name in sorted(before | now):
        (place, old), (where, new) = before.get(name, ("", "")), now.get(name, ("", ""))
        if old != new:
            yield f"{where or place}: {name}"


def _changes(key: str, before, now) -> Iterator[str]:
    """The values that differ between two options, by the keys that lead to them."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before | now):
            yield from _changes(f"{key}.{name}".strip("."), before.get(name), now.get(name))
    elif identity.canonical(before) != identity.canonical(now):
        yield f"{key}: {json.dumps(before)} is now {json.dumps(now)}"


def _by_name(code: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The place and the digest of each definition by its name, since a definition may move to another module."""
    parts = ((*label.partition(": ")[::2], digest) for label, digest in code.items())
    return {name: (place, digest) for place, name, digest in parts}


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


def fingerprint(path: Path) -> dict:
    """Names, sizes, times and hashes of a file, or of the files of a folder; above 100,000 files its folders' times."""
    if path.is_file():
        return {"": _file(path)}
    if not path.exists():
        return {}
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if len(files) > _MOST_FILES:
        folders = [path, *(p for p in path.rglob("*") if p.is_dir())]
        return {f"{p.relative_to(path)}/": [0, p.stat().st_mtime_ns, ""] for p in folders}
    return {str(p.relative_to(path)): _file(p) for p in files}


_MOST_FILES = 100_000


def _file(path: Path) -> list:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, sha256(path)]


def changed_outside(path: Path, before: dict) -> list[str]:
    """What changed of a watched file or folder since its fingerprint: names with what became of them.

    A file whose size and time are as before is not read. A path that is missing has not changed: results need it no
    more.
    """
    if not path.exists():
        return []
    changes, seen = [], set()
    for name, size, mtime_ns in _listed(path, before):
        seen.add(name)
        known = before.get(name)
        if known is None:
            changes.append(f"{name or path} is new")
        elif [size, mtime_ns] != known[:2] and (
            not known[2] or size != known[0] or sha256(path / name if name else path) != known[2]
        ):
            changes.append(f"{name or path} has changed")
    return changes + [f"{name} is gone" for name in before if name not in seen]


def check_outside(receipt: Path) -> list[str]:
    """What changed of the files and folders from outside that a receipt's job read."""
    told = read_json(receipt)
    changes = []
    for path, before in told["watched"].items():
        changes += [f"{path}: {change}" for change in changed_outside(Path(path), before)]
    return changes


def _listed(path: Path, before: dict) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file, as cheaply as the system tells; of folders alone where `before` has those."""
    if path.is_file():
        found = path.stat()
        yield "", found.st_size, found.st_mtime_ns
        return
    folders_alone = any(name.endswith("/") for name in before)
    pending = [(str(path), "")]
    while pending:
        folder, prefix = pending.pop()
        if folders_alone:
            yield f"{prefix or './'}", 0, os.stat(folder).st_mtime_ns
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                elif not folders_alone:
                    found = entry.stat()
                    yield f"{prefix}{entry.name}", found.st_size, found.st_mtime_ns


# --- who made it


@cache
def provenance() -> dict:
    """The commit of the code ("modified" where the tree differs), where there is one."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit} | ({"modified": True} if _git("status", "--porcelain") else {})


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(identity.ROOT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
