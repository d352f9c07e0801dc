"""Several trainings as one study, and the networks of a study that travel."""

import subprocess
import sys
from pathlib import Path

from conftest import Workflow

TWO = "experiments: {digits: {train_seeds: [0, 1]}}\n"


def test_each_training_samples_with_seeds_of_its_own(fresh):
    (fresh.folder / "two.yaml").write_text(TWO, encoding="utf-8")
    cell = "results/digits/train{}/samples/ddpm/duodiff/t_s=0/seed{}/manifest.json"
    # the second file is read after the first, and the results lie in a folder of their own
    output = fresh.run("two.yaml", "--directory", "elsewhere", "--dry-run", "--cores", "1").stdout
    for train_seed, seed in ((0, 0), (0, 1), (1, 1000), (1, 1001)):
        assert cell.format(train_seed, seed) in output
    assert cell.format(1, 0) not in output


def duodiff(folder: Path, *arguments: str) -> str:
    """What a command says, in the folder of a workflow."""
    command = [sys.executable, "-m", "duodiff", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_networks_that_were_shipped_are_not_trained_again(finished, tmp_path):
    shipped = tmp_path / "study"
    said = duodiff(finished.folder, "ship", "results", "--out", str(shipped))
    assert "digits: 1 trainings usual; digits_latent: 1 trainings usual" in said
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Workflow(tmp_path / "elsewhere")
    said = duodiff(elsewhere.folder, "networks", "--study", str(shipped))
    assert said.startswith("networks: 6 networks: results/digits/train0/full/manifest.json")
    heads = "results/digits/train0/heads/manifest.json"
    output = elsewhere.snakemake("--cores", "1", heads)
    assert output.count("found finished in results/.store") == 2  # full and heads
    for name in ("model.safetensors", "curve.csv"):
        mine, theirs = (one.folder / heads for one in (elsewhere, finished))
        assert mine.with_name(name).read_bytes() == theirs.with_name(name).read_bytes()
