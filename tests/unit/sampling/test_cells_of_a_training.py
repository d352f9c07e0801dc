"""All cells of a training sampled by one process: the stores that a job of each cell would write, kept as theirs."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from unit.tiny_study import DDPM, DPM_SOLVER, USED, loaded

from duodiff import identity
from duodiff.early_exit import AdaDiff
from duodiff.running import receipts
from duodiff.running.files import read_json
from duodiff.sampling.samples import write_samples
from duodiff.settings import Setting

WORK = ["workflow_scripts.sample_images", "sample_images"]
ARRAYS = ("images", "labels", "blocks_run")
SHARED = {
    "experiment": "digits",
    "protocol": "corrected",
    "conventions": USED,
    "precision": "float32",
    "images": 6,
    "batch": 4,
    "train_seed": "0",
    "compiled": None,
}
# a cell of each kind twice, so that one follows another on the same networks
SETTINGS = ("theta=0.3", "t_s=400", "theta=0.5", "t_s=0", "t_s=1000")
CELLS = [{"sampler": DDPM, "setting": setting, "seed": "3"} for setting in SETTINGS]
CELLS.append({"sampler": DPM_SOLVER, "setting": "t_s=400", "seed": "4"})


def outputs(cell: dict) -> list[str]:
    """Where a cell lies, as the workflow names its files."""
    folder = f"results/digits/train0/samples/{cell['sampler']['name']}/{cell['setting']}"
    return [f"{folder}/manifest.json", *(f"{folder}/{name}.npy" for name in ARRAYS)]


@pytest.fixture
def sample(paths, tmp_path, monkeypatch):
    """A function that samples cells by the script, in a folder of its own, and gives what the script says."""
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(identity.ROOT / "workflow_scripts/sample_cells.py"))

    def sample(cells: list[dict], **changed) -> str:
        files = [[[str(paths["full"])], outputs(cell)] for cell in cells]
        made = script["sample_cells"](
            SHARED | changed, cells, files, WORK, device="cpu", out=Path("made.json"), **paths
        )
        assert set(read_json("made.json")) == {written[0] for _, written in files}
        return made

    return sample


def test_each_cell_is_the_store_that_its_own_job_writes(sample, paths, tmp_path):
    assert sample(CELLS) == "6 cells sampled, 0 found finished in results/.store"
    for cell in CELLS:
        setting = Setting.parse(cell["setting"])
        roles = [*setting.networks, "quantiles"]
        own = tmp_path / "own" / str(setting) / cell["sampler"]["name"] / "manifest.json"
        write_samples(
            own,
            loaded({role: paths[role] for role in roles}),
            sampler=cell["sampler"],
            setting=setting,
            images=6,
            batch=4,
            seed=int(cell["seed"]),
            experiment="digits",
            train_seed=0,
        )
        manifest, *arrays = outputs(cell)
        assert receipts.content(manifest) == receipts.content(own)
        for array in arrays:
            assert np.array_equal(np.load(array), np.load(own.parent / Path(array).name))


def test_each_cell_has_the_receipt_of_its_own_job_and_is_found_again(sample, monkeypatch):
    sample(CELLS[:2])
    for cell in CELLS[:2]:
        receipt = receipts.read(receipts.receipt_of(outputs(cell)[0]))
        options = SHARED | cell
        assert receipt["identity"] == identity.of(tuple(WORK), options)
        assert receipt["options"] == json.loads(identity.canonical(options))
        assert (receipts.STORE / receipt["key"]).is_dir()
    Path(outputs(CELLS[0])[1]).unlink()
    assert sample(CELLS[:3]) == "1 cells sampled, 2 found finished in results/.store"
    assert Path(outputs(CELLS[0])[1]).exists()
    assert sample(CELLS[:1], batch=8) == "1 cells sampled, 0 found finished in results/.store"


def test_uncertainties_that_are_nan_are_counted_for_their_own_cell(sample, monkeypatch):
    forward, calls = AdaDiff.forward, []

    def some_nan(self, *arguments):
        calls.append(arguments)
        self.nan_count += len(calls) == 1  # in the first cell alone
        return forward(self, *arguments)

    monkeypatch.setattr(AdaDiff, "forward", some_nan)
    exiting = [CELLS[0], CELLS[2]]
    sample(exiting)
    assert [read_json(outputs(cell)[0])["nan_uncertainties"] for cell in exiting] == [1, 0]
