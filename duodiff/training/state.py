"""The state of an unfinished training, kept so that the next run continues it as if nothing had happened.

States lie in a hidden folder beside the outputs, because Snakemake deletes outputs before a job and after its failure.
A state is one safetensors file. Its header holds the identity of the training, the values that are no tensors, and the
sha256 of everything. The folder's name contains a hash of the identity: another configuration, other data or other code
start a training anew.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from duodiff.running import provenance, signals
from duodiff.running.files import atomic, remove_leftovers, require_space
from duodiff.training import devices

log = logging.getLogger("duodiff")

KEPT = 2
"""States kept: if the last one is damaged, the one before it is used."""

EVERY_S = 30.0
"""Seconds from one state to the next, unless saving takes more than `SHARE` of them."""

SHARE = 0.02
"""The largest part of the time that goes into saving."""

State = tuple[dict[str, Tensor], dict]
"""Tensors by name, and values that JSON can hold."""


class Saves:
    """Where a training keeps its states, and when it writes them.

    `out` is the manifest that the training will write. `identity` (JSON) holds everything that decides its result;
    torch's version is added here, and what is said of the making of
    its data is left out.
    """

    def __init__(self, out: Path, identity: dict):
        described = provenance.without(identity) | {"torch": torch.__version__}
        self.training = json.dumps(described, sort_keys=True)
        name = hashlib.sha256(self.training.encode()).hexdigest()[:12]
        self.folder = out.parent.parent / ".resume" / f"{out.parent.name}-{name}"
        self._request = signals.Request()
        self._due = time.monotonic() + EVERY_S

    @contextmanager
    def on_stop(self):
        """Inside the block a signal that asks to stop waits for `after_step`, which saves first."""
        with signals.noted() as self._request:
            yield

    def restore(self) -> State | None:
        """The last good state, torch's generators put back as they were; None if there is none.

        Raises ValueError if there are states, and all are damaged.
        """
        self._name_others()
        remove_leftovers(self.folder)
        damaged = []
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            try:
                tensors, values = _read(path, self.training)
            except ValueError as error:
                if not path.exists():  # removed by a process of a lost node, which goes on
                    continue
                log.warning("%s: %s; the one before is used", path, error)
                damaged.append(path)
                continue
            for useless in damaged:  # or it would count among those kept
                useless.unlink(missing_ok=True)
            _set_generators(tensors)
            log.info("continued from %s", path)
            return tensors, values
        if damaged:
            raise ValueError(
                f"{self.folder}: its states ({len(damaged)}) are all damaged; remove it to train from the start"
            )
        return None

    def require_space(self, state: int, checkpoint: int) -> None:
        """Raises OSError unless there is room for states of `state` bytes and the `checkpoint` in the end."""
        there = sum(path.stat().st_size for path in self.folder.glob("step-*.safetensors"))
        require_space(self.folder, (KEPT + 1) * state + checkpoint - there, "training")

    def after_step(self, state: Callable[[], State]) -> None:
        """Saves the `state` if it is time. Raises Stopped, with the state saved, if a signal asks to stop."""
        asked = devices.asked_to_stop(self._request.signal)
        if not asked and time.monotonic() < self._due:
            return
        saved = state()
        self.save(saved)
        if asked:
            devices.wait()  # torchrun ends all processes once one has ended
            step = saved[1]["step"]
            raise signals.Stopped(
                f"stopped by {asked}, saved at step {step}; run again to continue"
            )

    def save(self, state: State) -> Path:
        """The file of a state, written whole; older ones than the last `KEPT` are removed.

        `step` among its values is the number of finished steps.
        """
        begun = time.monotonic()
        tensors, values = state
        path = self.folder / f"step-{values['step']:09d}.safetensors"
        if not devices.is_first():
            return path
        tensors = {k: v.detach().cpu().contiguous() for k, v in (tensors | _generators()).items()}
        header = {"training": self.training, "values": json.dumps(values)}
        header |= {"sha256": _digest(tensors, header)}
        try:
            _write(path, tensors, header)
        except (OSError, SafetensorError):
            if self.folder.exists():
                raise
            # a process of a lost node has finished this training meanwhile, and has removed its states
            _write(path, tensors, header)
        for older in sorted(self.folder.glob("step-*.safetensors"))[:-KEPT]:
            older.unlink(missing_ok=True)
        now = time.monotonic()
        self._due = now + max(EVERY_S, (now - begun) / SHARE)
        return path

    def clear(self) -> None:
        """Removes the states of a finished training."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _name_others(self) -> None:
        role = self.folder.name.rpartition("-")[0]
        for other in sorted(self.folder.parent.glob(f"{role}-*")):
            if other != self.folder:
                log.warning(
                    "%s holds an unfinished training of another configuration, data or code; it is left"
                    " there, remove it if you do not go back to that",
                    other,
                )


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, by names that `restore_optimizer` reads."""
    found = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": v for i, kept in found.items() for k, v in kept.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts the state of `optimizer_state`, among `tensors`, back."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            i, _, key = rest.partition(".")
            found.setdefault(int(i), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": found, "param_groups": groups})


def _generators() -> dict[str, Tensor]:
    """The states of torch's own generators."""
    found = {"generator.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["generator.cuda"] = torch.cuda.get_rng_state()
    return found


def _set_generators(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["generator.cpu"])
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator.cuda"])


def _read(path: Path, training: str) -> State:
    """The state in a file. Raises ValueError if it is damaged or of another training."""
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    expected = header.pop("sha256", None)
    if expected != _digest(tensors, header):
        raise ValueError("its content is not what its sha256 says")
    if header["training"] != training:
        raise ValueError("it belongs to another training")
    return tensors, json.loads(header["values"])


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    with atomic(path) as temporary:
        save_file(tensors, temporary, header)


def _digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """sha256 of everything in a state's file, by content."""
    described = [[n, str(v.dtype), list(v.shape)] for n, v in sorted(tensors.items())]
    found = hashlib.sha256(json.dumps([header, described], sort_keys=True).encode())
    for _, value in sorted(tensors.items()):
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
