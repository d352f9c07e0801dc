"""Trainings that are killed or asked to stop, that find damaged states, or whose numbers are not finite."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from duodiff.data.store import ImageStore
from duodiff.early_exit import AdaDiff
from duodiff.protocol import CORRECTED
from duodiff.running import signals
from duodiff.running.files import read_json
from duodiff.schedules import noise_schedule
from duodiff.training import autoencoder, loop, state
from duodiff.training.backbone import denoising_loss
from duodiff.training.batches import Noiser
from duodiff.training.guard import MOST_SKIPPED
from duodiff.training.heads import heads_loss
from duodiff.training.loop import TrainingConfig, fit
from duodiff.training.state import Saves
from duodiff.uvit import Denoiser, UViT
from faults.killed_training import CONVENTIONS, NET, TRAINING, hashes, train
from faults.scripts import ROOT, start

KILLS, SEED = 20, 7
EVERY_STEP = "from duodiff.training import state\nstate.EVERY_S, state.SHARE = 0, float('inf')"
CONFIG = TrainingConfig(
    **{k: v for k, v in TRAINING.items() if k not in ("flips", "label_dropout", "init")}
)


@pytest.fixture
def every_step(monkeypatch):
    """Saves a state after every step."""
    monkeypatch.setattr(state, "EVERY_S", 0)
    monkeypatch.setattr(state, "SHARE", float("inf"))


class Broken(Exception):
    """Ends a training in a test."""


# --- killed


def test_a_training_killed_at_random_moments_gives_the_weights_of_an_undisturbed_one(tmp_path):
    script = Path(__file__).with_name("killed_training.py")
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), str(SEED)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(
        f"seed {SEED}: {result['kills']} kills, {result['while_writing']} while a state was written"
    )
    assert result["kills"] == KILLS
    assert result["while_writing"] > 0
    assert all(killed == result["undisturbed"] for killed in result["killed"])
    assert not list(tmp_path.glob("*/.resume/*"))  # a finished training keeps no state


def last_step(folder: Path) -> int:
    """The step of the last state in `folder`; 0 without a state."""
    return max((int(p.stem[5:]) for p in folder.glob(".resume/*/step-*.safetensors")), default=0)


def test_a_script_asked_to_stop_saves_and_continues_to_the_same_weights(digits, tmp_path):
    """The real script in real processes: stopped by SIGKILL, then SIGTERM, then SIGUSR1, and then left alone."""
    train(digits, tmp_path / "undisturbed/full/manifest.json")
    out = tmp_path / "asked/full/manifest.json"
    arguments = {
        "data": digits,
        "architecture": NET,
        "conventions": CONVENTIONS,
        "null_class": False,
        "training": TRAINING,
        "seed": "0",
        "device": "cpu",
        "out": out,
        "log": tmp_path / "train.log",
    }
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1):
        before = last_step(out.parents[1])
        process = start("train_backbone", arguments, EVERY_STEP)
        while last_step(out.parents[1]) == before:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)  # the grace period
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == signals.EXIT_CODE
            assert f"stopped by {number.name}, saved at step" in output
            assert "Traceback" not in output
        assert not out.exists()
    process = start("train_backbone", arguments, EVERY_STEP)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "continued from" in output
    assert hashes(out) == hashes(tmp_path / "undisturbed/full/manifest.json")


# --- continued, in this process


def backbone_run(digits: Path):
    """(model, parameters, loss) of a small backbone. The loss draws from torch's global generator."""
    torch.manual_seed(0)
    model = Denoiser(UViT(**NET))

    def loss(model, batch):
        return denoising_loss(model, batch) * (1 + 0.1 * torch.rand(()))

    return model, list(model.parameters()), loss


def heads_run(digits: Path):
    torch.manual_seed(0)
    model = AdaDiff(UViT(**NET), timestep_aware=True)
    model.uvit.requires_grad_(False)
    loss = partial(heads_loss, time_convention="t", protocol=CORRECTED)
    return model, model.heads_parameters(), loss


def fitted(digits: Path, run, out: Path | None, breaks_at: int | None = None, config=CONFIG):
    """Weights, averaged weights and curve of a training. Call number `breaks_at` of its loss raises Broken."""
    model, parameters, loss = run(digits)
    store, calls = ImageStore(digits), 0
    images, labels = store.split("train")
    noiser = Noiser(images, labels, noise_schedule("linear"))
    nine = torch.arange(9)
    held_out = noiser.noised(nine, nine * 111, noiser.at_step(0, 0, 9).eps)

    def breaking(model, batch):
        nonlocal calls
        calls += 1
        if calls == breaks_at:
            raise Broken
        return loss(model, batch)

    saves = out and Saves(out, {"kind": "test"})
    average, curve = fit(
        model, parameters, breaking, noiser, held_out, config=config, seed=3, saves=saves
    )
    return model.state_dict(), average.state_dict(), curve


@pytest.mark.parametrize("run", [backbone_run, heads_run])
def test_a_training_broken_off_anywhere_continues_bit_for_bit(digits, run, tmp_path, every_step):
    config = replace(CONFIG, steps=23)
    whole = fitted(digits, run, None, config=config)
    for breaks_at in (1, 2, 3, 7, 20, 9):  # some calls are of the held-out loss
        with pytest.raises(Broken):
            fitted(digits, run, tmp_path / "full/manifest.json", breaks_at, config)
    continued = fitted(digits, run, tmp_path / "full/manifest.json", config=config)
    for mine, expected in zip(continued[:2], whole[:2], strict=True):
        assert all(torch.equal(mine[key], expected[key]) for key in expected)
    assert continued[2] == whole[2]


def test_the_training_of_an_autoencoder_continues_to_the_same_bytes(digits, tmp_path, monkeypatch):
    architecture = {
        "latent_channels": 2,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    training = {"steps": 9, "batch": 8, "lr": 2e-3, "kl_weight": 1e-3}

    def run(name: str) -> bytes:
        out = tmp_path / name / "autoencoder/config.json"
        autoencoder.train_autoencoder(digits, architecture, training, "cpu", out)
        return (out.parent / autoencoder.WEIGHTS).read_bytes()

    whole, loss, calls = run("whole"), autoencoder.loss, iter(range(10**6))

    def breaking(*arguments):
        if next(calls) in (0, 3, 8):
            raise Broken
        return loss(*arguments)

    monkeypatch.setattr(state, "EVERY_S", 0)
    monkeypatch.setattr(state, "SHARE", float("inf"))
    monkeypatch.setattr(autoencoder, "loss", breaking)
    for _ in range(3):
        with pytest.raises(Broken):
            run("broken")
    assert run("broken") == whole
    assert next(calls) == 9 + 3  # only the three steps broken off were computed twice


def test_a_training_asked_to_stop_ends_after_the_step_with_its_state_saved(digits, tmp_path):
    """A stop does not wait for the interval between states; the default interval is longer than this test."""
    model, parameters, loss = backbone_run(digits)
    asked = []

    def asking(model, batch):
        if len(asked) == 4:
            signal.raise_signal(signal.SIGTERM)
        asked.append(len(batch))
        return loss(model, batch)

    images, labels = ImageStore(digits).split("train")
    noiser = Noiser(images, labels, noise_schedule("linear"))
    saves = Saves(tmp_path / "full/manifest.json", {})
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.Stopped, match=r"stopped by SIGTERM, saved at step 5; run again"):
        fit(
            model,
            parameters,
            asking,
            noiser,
            noiser.stratified(0),
            config=CONFIG,
            seed=3,
            saves=saves,
        )
    assert [path.name for path in saves.folder.iterdir()] == ["step-000000005.safetensors"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_state_whose_curve_is_not_finite_is_saved_and_read(tmp_path, every_step):
    saves = Saves(tmp_path / "full/manifest.json", {})
    saves.save(
        ({"parameter.0": torch.ones(2)}, {"step": 3, "curve": [{"held_out_loss": math.inf}]})
    )
    _, values = saves.restore()
    assert values == {"step": 3, "curve": [{"held_out_loss": math.inf}]}


def test_a_state_is_saved_where_another_process_has_just_finished_the_training(
    tmp_path, monkeypatch
):
    """As SLURM may have it, which starts a job again whose first process goes on, on a node that it has given up."""
    saves, write = Saves(tmp_path / "full/manifest.json", {}), state.save_file

    def save_file(*arguments):
        monkeypatch.setattr(state, "save_file", write)
        saves.clear()  # what the other process does at its end
        write(*arguments)

    monkeypatch.setattr(state, "save_file", save_file)
    path = saves.save(({"parameter.0": torch.ones(2)}, {"step": 3}))
    assert path.exists()
    assert saves.restore()[1] == {"step": 3}


def test_a_continued_training_needs_no_room_for_the_states_that_are_there(tmp_path, monkeypatch):
    saves, needed = Saves(tmp_path / "full/manifest.json", {}), []
    monkeypatch.setattr(state, "require_space", lambda folder, size, what: needed.append(size))
    saves.require_space(1000, 500)
    path = saves.save(({"parameter.0": torch.ones(2)}, {"step": 3}))
    saves.require_space(1000, 500)
    assert needed == [3500, 3500 - path.stat().st_size]


# --- states that are damaged, or of another training


@pytest.fixture
def broken_off(digits, tmp_path, every_step):
    """A training broken off with two states, of 5 and 6 steps, and the result of an undisturbed training."""
    config = replace(CONFIG, steps=12)
    out = tmp_path / "full/manifest.json"
    with pytest.raises(Broken):
        fitted(digits, backbone_run, out, 6 * 3 + 1, config)  # two parts of held-out images a step
    states = sorted(tmp_path.glob(".resume/*/*"))
    assert [path.name for path in states] == [f"step-{n:09d}.safetensors" for n in (5, 6)]
    return (
        partial(fitted, digits, backbone_run, out, config=config),
        states,
        fitted(digits, backbone_run, None, config=config),
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


DAMAGE = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "bit of the header": partial(flip, at=0.01),
    "bit of a tensor": partial(flip, at=0.6),
    "last bit": partial(flip, at=1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_named_and_the_one_before_it_used(broken_off, damage, caplog):
    run, (before, last), whole = broken_off
    damage(last)
    with caplog.at_level("INFO"):
        weights, _, curve = run()
    assert f"{last}: " in caplog.text
    assert "the one before is used" in caplog.text
    assert f"continued from {before}" in caplog.text
    assert all(torch.equal(weights[key], whole[0][key]) for key in weights)
    assert curve == whole[2]


def test_a_state_of_another_training_in_its_place_is_not_used(broken_off, digits, tmp_path, caplog):
    run, (_, last), whole = broken_off
    other = Saves(tmp_path / "full/manifest.json", {"kind": "another"})
    model, parameters, _ = backbone_run(digits)
    tensors, values = loop._Run(model, parameters, CONFIG, None).state()
    swapped = other.save((tensors, values | {"step": 6}))
    last.write_bytes(swapped.read_bytes())
    weights, _, _ = run()
    assert f"{last}: it belongs to another training; the one before is used" in caplog.text
    assert f"{other.folder} holds an unfinished training of another configuration" in caplog.text
    assert swapped.exists()  # the state was set aside, not removed
    assert all(torch.equal(weights[key], whole[0][key]) for key in weights)


def test_states_that_are_all_damaged_are_an_error_that_says_what_to_do(broken_off):
    run, states, _ = broken_off
    for path in states:
        cut(path)
    with pytest.raises(ValueError, match=r"its states \(2\) are all damaged; remove it to train"):
        run()


def test_what_decides_a_training_decides_its_folder(tmp_path, monkeypatch):
    def folder(**identity) -> Path:
        return Saves(tmp_path / "full/manifest.json", identity).folder

    first = folder(seed=0)
    assert folder(seed=0) == first != folder(seed=1)
    assert first.parent == tmp_path / ".resume"
    monkeypatch.setattr(torch, "__version__", "0")
    assert folder(seed=0) != first


# --- numbers


def spoiling(steps: set[int], how: str):
    """A run whose loss or gradient is not finite in these steps (0-based)."""

    def run(digits: Path):
        model, parameters, _ = backbone_run(digits)
        calls = iter(range(10**6))

        def loss(model, batch):
            value = denoising_loss(model, batch)
            if not torch.is_grad_enabled() or next(calls) not in steps:
                return value
            # the root of 0 is finite, its derivative is not
            return value * torch.nan if how == "loss" else value + (value * 0).sqrt()

        return model, parameters, loss

    return run


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_and_counted(digits, how, caplog):
    config = replace(CONFIG, steps=20)
    weights, average, curve = fitted(digits, spoiling({3, 4, 11}, how), None, config=config)
    for tensors in (weights, average):
        assert all(torch.isfinite(v).all() for v in tensors.values())
    assert [row["skipped_steps"] for row in curve[2:5]] == [0, 1, 2]
    assert curve[-1]["skipped_steps"] == 3
    assert curve[3]["train_loss"] is None  # that step changed nothing
    assert curve[5]["train_loss"] > 0
    assert "step 4 of 20" in caplog.text


def test_a_training_that_stays_not_finite_is_stopped_at_its_last_good_state(digits, tmp_path):
    config, steps = replace(CONFIG, steps=40), set(range(9, 40))
    out = tmp_path / "full/manifest.json"
    message = (
        rf"step {9 + MOST_SKIPPED} of 40, learning rate 0.\d+: .* not finite for 10 steps in a row"
    )
    with pytest.raises(ValueError, match=message) as stopped:
        fitted(digits, spoiling(steps, "loss"), out, config=config)
    (good,) = tmp_path.glob(".resume/*/step-000000009.safetensors")
    assert str(good) in str(stopped.value)
    tensors, values = state._read(good, Saves(out, {"kind": "test"}).training)
    assert values["step"] == 9
    assert all(torch.isfinite(v).all() for v in tensors.values() if v.is_floating_point())


def test_one_step_less_than_that_is_not_the_end(digits):
    config = replace(CONFIG, steps=30)
    steps = set(range(5, 5 + MOST_SKIPPED - 1)) | set(range(20, 20 + MOST_SKIPPED - 1))
    _, _, curve = fitted(digits, spoiling(steps, "loss"), None, config=config)
    assert curve[-1]["skipped_steps"] == 2 * (MOST_SKIPPED - 1)


def test_an_autoencoder_whose_loss_is_not_finite_is_stopped(digits, tmp_path):
    architecture = {
        "latent_channels": 2,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    training = {"steps": 9, "batch": 8, "lr": 1e30, "kl_weight": 1e-3}
    out = tmp_path / "autoencoder/config.json"
    with pytest.raises(
        ValueError, match=r"step [2-9] of 9, learning rate \d.*: loss (nan|inf); a smaller"
    ):
        autoencoder.train_autoencoder(digits, architecture, training, "cpu", out)
    assert not out.exists()


def test_a_checkpoint_says_how_many_steps_were_skipped(digits, tmp_path):
    train(digits, tmp_path / "full/manifest.json")
    assert read_json(tmp_path / "full/manifest.json")["skipped_steps"] == 0


def test_deterministic_training_asks_torch_for_it_and_puts_it_back(digits, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []

    def run(digits: Path):
        model, parameters, loss = backbone_run(digits)

        def looking(model, batch):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return loss(model, batch)

        return model, parameters, looking

    for wanted in (True, False):
        seen.clear()
        fitted(digits, run, None, config=replace(CONFIG, steps=2, deterministic=wanted))
        assert set(seen) == {wanted}
        assert not torch.are_deterministic_algorithms_enabled()
