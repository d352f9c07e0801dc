"""One training in two processes under torchrun, against the same one in this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from several_processes import CONFIG, NOISERS, trainings

from duodiff.training.batches import Batch

ROOT = Path(__file__).parents[3]
KINDS = ("pixels", "latents", "heads, corrected", "heads, paper")


@pytest.fixture(scope="module")
def alone() -> dict:
    return trainings()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("together")
    script = Path(__file__).with_name("several_processes.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(alone, together, kind):
    one, two = alone[kind], together[0][kind]
    assert len(one["curve"]) == CONFIG.steps
    for name in ("train_loss", "held_out_loss"):
        losses = [[entry[name] for entry in found["curve"]] for found in (one, two)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "spoilt", "continued"])
def test_both_processes_have_the_same_bits(together, kind):
    one, two = (found[kind] for found in together)
    assert one["curve"] == two["curve"]
    assert all(torch.equal(v, two["weights"][k]) for k, v in one["weights"].items())


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_one_process_is_skipped_in_both(together):
    skipped = [entry["skipped_steps"] for entry in together[0]["spoilt"]["curve"]]
    assert skipped == [0] * 3 + [1] * 3 + [2] * 4
    assert all(v.isfinite().all() for v in together[0]["spoilt"]["weights"].values())


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_one_step_and_both_continue(together):
    for found in together:
        assert found["stopped"] == "stopped by SIGUSR1, saved at step 5; run again to continue"
        assert found["states"] == ["step-000000005.safetensors"]
        for name, value in found["pixels"]["weights"].items():
            assert torch.equal(found["continued"]["weights"][name], value)


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(together):
    message = "training.batch: found 9; accepted: a multiple of 2, processes (gpus) x accumulate"
    assert [found["uneven"] for found in together] == [message] * 2


@pytest.mark.parametrize("name", NOISERS)
def test_rows_of_a_batch_are_those_of_the_whole(name):
    whole = NOISERS[name].at_step(0, 3, 12)
    parts = [NOISERS[name].at_step(0, 3, 12, slice(i, i + 4)) for i in (0, 4, 8)]
    assert (whole.parts, [part.parts for part in parts]) == (1, [3, 3, 3])
    for field in ("x_0", "x_t", "t", "eps", "target", "y"):
        assert torch.equal(torch.cat([getattr(p, field) for p in parts]), getattr(whole, field))
    assert all(isinstance(part, Batch) and part.parts == 3 for part in parts[0].chunks(3))
