"""Sample stores: what their manifests say, how shards are joined, and which unfinished ones are continued."""

from contextlib import suppress

import numpy as np
import pytest
from unit.tiny_study import DDPM, DPM_SOLVER, STUDY, USED, loaded

from duodiff.data.store import ImageStore
from duodiff.records import of_samples
from duodiff.running import provenance, receipts
from duodiff.running.files import read_json, write_json
from duodiff.sampling import generation, samples
from duodiff.sampling.gather import gather_samples
from duodiff.sampling.generation import sample_batch
from duodiff.sampling.models import Models
from duodiff.sampling.samples import write_samples
from duodiff.settings import Setting

STORE = ("manifest.json", "images.npy", "labels.npy", "blocks_run.npy")


def cell_of(setting: str, images=6, batch=4, seed=0, sampler=DDPM) -> dict:
    """The arguments of `write_samples` that describe a cell."""
    described = {"setting": Setting.parse(setting), "sampler": sampler, "images": images}
    return STUDY | described | {"batch": batch, "seed": seed}


def sampled_in_shards(paths, folder, setting, shards, sampler=DDPM) -> list:
    """Manifests of the shards of a cell of 30 images in four batches."""
    found = [folder / f"shards/{i}-of-{shards}/manifest.json" for i in range(shards)]
    for i, out in enumerate(found):
        cell = cell_of(setting, 30, 8, 7, sampler)
        write_samples(out, loaded(paths), **cell, shard=i, shards=shards)
    return found


def test_a_written_cell_says_what_it_is(paths, tmp_path):
    out = tmp_path / "cell/manifest.json"
    manifest = write_samples(out, loaded(paths), **cell_of("theta=0.3", 10, seed=7))
    assert ImageStore(out).images.shape == (10, 1, 8, 8)
    assert np.load(out.parent / "blocks_run.npy").shape == (10, 10)
    assert manifest["seed"] == 7
    assert manifest["nfe"] == 10
    assert manifest["nan_uncertainties"] == 0
    assert set(manifest["checkpoint_sha256"]) == {"full", "heads"}
    assert manifest["departures"] == []
    made = manifest["made"]
    assert len(made["code"]) == 64
    assert made["of"] == {role: read_json(paths[role])["made"] for role in ("full", "heads")}
    assert made["of"]["heads"]["of"]["full"] == made["of"]["full"]
    assert "openvino" not in made["libraries"]


def test_a_cell_of_chosen_classes_says_so_and_takes_no_parts_of_others(paths, tmp_path):
    out = tmp_path / "cell/manifest.json"
    manifest = write_samples(out, loaded(paths), **cell_of("t_s=400"), classes=[2, 7])
    assert manifest["classes"] == [2, 7]
    assert ImageStore(out).labels.tolist() == [2, 7, 2, 7, 2, 7]
    assert "classes" not in write_samples(out, loaded(paths), **cell_of("t_s=400"))


def made_by(monkeypatch, commit: str) -> None:
    """Has what follows made under another commit."""
    monkeypatch.setattr(provenance, "commit", lambda: {"commit": commit})


def test_shards_made_under_different_commits_are_joined_and_all_named(paths, tmp_path, monkeypatch):
    write_samples(tmp_path / "1/manifest.json", loaded(paths), **cell_of("t_s=400", 30, 8, 7))
    found = [tmp_path / f"2/shards/{i}-of-2/manifest.json" for i in range(2)]
    for i, out in enumerate(found):
        made_by(monkeypatch, str(i) * 40)
        write_samples(out, loaded(paths), **cell_of("t_s=400", 30, 8, 7), shard=i, shards=2)
    joined = gather_samples(found, 30, tmp_path / "2/manifest.json")
    assert joined["made"] == {"parts": [read_json(shard)["made"] for shard in found]}
    assert receipts.content(tmp_path / "1/manifest.json") == receipts.content(
        tmp_path / "2/manifest.json"
    )
    changed = read_json(found[1])
    changed["made"]["code"] = "other code"
    write_json(found[1], changed)
    with pytest.raises(ValueError, match="shards: they were not sampled alike"):
        gather_samples(found, 30, tmp_path / "2/manifest.json")


def test_shards_that_do_not_say_what_made_them_are_joined(paths, tmp_path):
    shards = sampled_in_shards(paths, tmp_path, "t_s=400", 2)
    for shard in shards:
        write_json(shard, {k: v for k, v in read_json(shard).items() if k != "made"})
    assert not gather_samples(shards, 30, tmp_path / "manifest.json").get("made")


def first_images(monkeypatch, interrupted: tuple[int, ...]) -> list[int]:
    """A list that gets the first image of each compute batch; those of these numbers, from 1, are interrupted."""
    found = []

    def counted(*arguments, **options):
        found.append(arguments[2])
        if len(found) in interrupted:
            raise InterruptedError
        return sample_batch(*arguments, **options)

    monkeypatch.setattr(generation, "sample_batch", counted)
    return found


def test_an_unfinished_cell_goes_on_under_another_commit(paths, tmp_path, monkeypatch):
    out = tmp_path / "cell/manifest.json"
    full = {"full": paths["full"]}
    kept = first_images(monkeypatch, interrupted=(2,))
    for commit in ("1" * 40, "2" * 40):
        made_by(monkeypatch, commit)
        with suppress(InterruptedError):
            write_samples(out, loaded(full), **cell_of("t_s=0"))
    assert kept == [0, 4, 4]
    assert read_json(out)["made"]["commit"] == "2" * 40


@pytest.mark.parametrize("sampler", [DDPM, DPM_SOLVER], ids=lambda sampler: sampler["name"])
@pytest.mark.parametrize("setting", ["t_s=400", "theta=0.3"])
def test_a_cell_joined_from_shards_is_the_bytes_of_the_cell_made_in_one(
    paths, tmp_path, setting, sampler
):
    sampler = sampler | {"steps": 4}
    whole = cell_of(setting, 30, 8, 7, sampler)
    write_samples(tmp_path / "1/manifest.json", loaded(paths), **whole)
    for shards, first in ((2, 16), (4, 24)):
        folder = tmp_path / str(shards)
        parts = sampled_in_shards(paths, folder, setting, shards, sampler)
        assert read_json(parts[-1])["indices"] == [first, 30]
        gather_samples(parts, 30, folder / "manifest.json")
        for name in STORE:
            assert (folder / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_shards_that_do_not_make_up_a_cell_are_refused(paths, tmp_path):
    first, last = sampled_in_shards(paths, tmp_path / "a", "t_s=400", 2)
    (alien, _) = sampled_in_shards(paths, tmp_path / "b", "t_s=500", 2)
    out = tmp_path / "manifest.json"
    for wrong in ([last, first], [first], [last]):
        with pytest.raises(
            ValueError, match=r"shards: found images .*; accepted: all from 0 to 30"
        ):
            gather_samples(wrong, 30, out)
    with pytest.raises(ValueError, match="shards: they were not sampled alike"):
        gather_samples([alien, last], 30, out)
    np.save(last.parent / "labels.npy", np.zeros(14, np.int64))
    with pytest.raises(ValueError, match=r"labels.npy: its sha256 is not the one in its manifest"):
        gather_samples([first, last], 30, out)
    assert not out.exists()


def test_latents_are_encoded_trained_on_sampled_and_decoded(latent):
    folder, paths, codec = latent
    models = loaded({"full": paths["full"]})
    cell = cell_of("t_s=0")
    manifest = write_samples(folder / "cell/manifest.json", models, **cell, autoencoder=codec)
    assert manifest["shape"] == [3, 32, 32]
    assert manifest["count"] == 6
    assert manifest["autoencoder"] == codec.source | {"batch": 3}
    trained_on = read_json(folder / "latents/manifest.json")["moments_sha256"]
    assert read_json(paths["full"])["dataset_sha256"] == trained_on


def test_a_cell_of_another_precision_is_another_cell(paths, tmp_path, monkeypatch):
    out = tmp_path / "cell/manifest.json"
    full = {"full": paths["full"]}
    kept = first_images(monkeypatch, interrupted=(2,))
    with pytest.raises(InterruptedError):
        write_samples(out, loaded(full), **cell_of("t_s=0"))
    models = Models(USED, "corrected", **full, precision="bfloat16")
    manifest = write_samples(out, models, **cell_of("t_s=0"))
    assert kept == [0, 4, 0, 4]  # what float32 had computed is not taken
    assert manifest["dtype"] == "bfloat16"
    assert of_samples(manifest)["dtype"] == "bfloat16"


def test_a_cell_compiled_by_another_version_is_another_cell(paths, tmp_path, monkeypatch):
    full = {"full": paths["full"]}
    kept = first_images(monkeypatch, interrupted=(2, 4))
    monkeypatch.setattr("duodiff.sampling.models.compile_forward", lambda *arguments: None)
    for version in ("1", "2", "2"):
        monkeypatch.setattr(samples, "engine", lambda *where, v=version: f"openvino {v}")
        models = Models(USED, "corrected", **full, compiled=True)
        with suppress(InterruptedError):
            write_samples(tmp_path / "cell/manifest.json", models, **cell_of("t_s=0"))
    assert kept == [0, 4, 0, 4, 4]  # begun anew by version 2, which goes on after its own part
    assert read_json(tmp_path / "cell/manifest.json")["made"]["libraries"]["openvino"]


def test_a_record_says_whether_its_backbones_were_compiled(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("duodiff.sampling.models.compile_forward", lambda *arguments: None)
    found = {}
    for setting in ("t_s=0", "theta=0.4"):
        roles = {"full": paths["full"]} | ({"heads": paths["heads"]} if "theta" in setting else {})
        for compiled in (False, True):
            out = tmp_path / f"{setting}-{compiled}/manifest.json"
            models = Models(USED, "corrected", **roles, compiled=compiled)
            manifest = write_samples(out, models, **cell_of(setting, 4))
            found[setting, compiled] = of_samples(manifest)["compiled"]
    assert [key for key, value in found.items() if value] == [("t_s=0", True)]
