"""Distances, feature spaces, references, and the evaluation of sample stores."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import get_featuresdict_from_dataset
from unit.image_files import STAND_INS

from duodiff import spaces
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore, to_unit_range, write_store
from duodiff.metrics import classifier, features, weights
from duodiff.metrics.bootstrap import RESAMPLES
from duodiff.metrics.distances import (
    FrechetTo,
    Gaussian,
    extrapolation,
    frechet_distance,
    gaussian,
    inception_score,
    kernel_distance,
    moments,
    nearest_distances,
    precision_recall,
    random_halves,
    same_noise_bound,
    subset_distances,
    thumbnails,
)
from duodiff.metrics.evaluation import Evaluation
from duodiff.metrics.features import Extractor
from duodiff.metrics.reference import compute_reference, load_reference
from duodiff.running.files import sha256
from duodiff.sampling.export import write_npz, write_pngs

RNG = np.random.default_rng(0)
CIFAR = Path(__file__).parents[4] / "shared/data/cifar10-test-jpeg.zip"


def normal(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Features of mean exactly zero and covariance exactly the identity."""
    x = normal(n, dim, seed)
    return torch.linalg.qr(x - x.mean(0))[0] * (n - 1) ** 0.5


# --- distances


def test_frechet_distance_of_known_gaussians():
    """Means m_1, m_2 and commuting covariances: |m_1 - m_2|^2 + sum (s_1 - s_2)^2."""
    x = whitened(501, 7)
    s_1, s_2 = torch.arange(1, 8.0).double(), torch.arange(2, 9.0).double() ** 1.2
    shift = torch.linspace(-1, 2, 7).double()
    expected = ((shift**2).sum() + ((s_1 - s_2) ** 2).sum()).item()
    one, other = x * s_1, x * s_2 + shift
    assert frechet_distance(gaussian(one), gaussian(other)) == pytest.approx(expected, rel=1e-6)
    assert FrechetTo(gaussian(other))(one) == pytest.approx(expected, rel=1e-6)


def test_the_fast_distance_is_torch_fidelitys():
    a, b = normal(60, 5), normal(50, 5, 1) @ normal(5, 5, 2)
    to = FrechetTo(gaussian(b))
    assert to(a) == pytest.approx(frechet_distance(gaussian(a), gaussian(b)), rel=1e-9)
    assert FrechetTo(gaussian(a))(a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="5 samples for 5 features are too few"):
        frechet_distance(gaussian(a[:5]), gaussian(b))


def test_the_gaussian_of_a_gpu_is_torch_fidelitys():
    features = normal(300, 5) @ normal(5, 5, 2) + 100
    fitted, (mu, sigma) = gaussian(features), moments(features)
    np.testing.assert_allclose(mu, fitted.mu, rtol=1e-12)
    np.testing.assert_allclose(sigma, fitted.sigma, atol=1e-12 * fitted.sigma.max())


def test_influences_give_the_spread_of_a_difference_over_samples():
    """Images that share their noise: the pairs correlate, and the difference varies less than either."""
    to, found = FrechetTo(gaussian(whitened(1000, 3))), []
    for seed in range(100):
        shared = normal(300, 3, seed)
        a, b = shared * 1.5, shared * 1.3 + 0.05 * normal(300, 3, 1000 + seed)
        found.append(to(a) - to(b))
    truth = np.std(found, ddof=1)

    def spread(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((to.influences(one) - to.influences(other)).std()) / 300**0.5

    assert spread(a, b) == pytest.approx(truth, rel=0.25)
    assert spread(a, b.flip(0)) > 2 * truth


def test_influences_are_how_far_an_image_moves_the_distance():
    """The distance of a resample, minus the plain one, is the mean of the influences of what was drawn."""
    to, x = FrechetTo(gaussian(whitened(1000, 5))), normal(4000, 5) * 1.4 + 0.3
    counts = torch.ones(4000, dtype=torch.int64)
    counts[:2000:20] += 1
    counts[1:2000:20] -= 1
    moved = to(x.repeat_interleave(counts, dim=0)) - to(x)
    assert float((counts * to.influences(x)).mean()) == pytest.approx(moved, rel=0.05)
    assert float(to.influences(x).mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_the_same_noise_bounds_the_difference_of_two_distances(noise):
    to, base = FrechetTo(gaussian(whitened(1000, 7))), normal(40, 7) * 1.2 + 0.4
    other = base + noise * normal(40, 7, 1)
    bound = same_noise_bound(other, base)
    assert abs(to(other) ** 0.5 - to(base) ** 0.5) <= bound
    assert bound == pytest.approx(noise * 7**0.5, rel=0.3)
    # a shift moves every image alike, and the bound is reached
    far = whitened(1000, 7) + 5
    assert same_noise_bound(far + 1, far) == pytest.approx(
        to(far + 1) ** 0.5 - to(far) ** 0.5, rel=0.01
    )


def test_the_extrapolation_removes_the_bias_of_few_samples():
    """Ten samples a feature, the fewest allowed; the true distance is 0.01 D, and n samples read far above."""
    n, dim = spaces.images_to_extrapolate("fd_x"), 64
    known = Gaussian(np.zeros(dim), np.eye(dim), 10**9)
    to, truth = FrechetTo(known), 0.01 * dim
    found = [extrapolation(1.1 * normal(n, dim, seed), to) for seed in range(8)]
    assert (found[0].sizes[0], found[0].sizes[-1]) == (n // 2, n)
    assert found[0].distances[-1] == pytest.approx(to(1.1 * normal(n, dim, 0)))
    assert all(one.distances[-1] > 2 * truth for one in found)
    assert np.mean([one.limit for one in found]) == pytest.approx(truth, rel=0.2)
    assert all(0 < one.error < truth and 0.8 < one.r2 <= 1 for one in found)


def test_the_extrapolation_would_be_wrong_with_fewer():
    """2.5 samples a feature, as FID has at 5,120: the line overshoots, and R^2 does not tell."""
    to = FrechetTo(Gaussian(np.zeros(64), np.eye(64), 10**9))
    found = extrapolation(1.1 * normal(160, 64), to)
    assert found.limit < 0 < 0.64
    assert found.r2 > 0.95


def test_kernel_distance_precision_and_recall():
    a, b = normal(400, 4), normal(400, 4, 1)
    same, deviation, size = kernel_distance(a, b)
    far, _, _ = kernel_distance(a, b + 2)
    assert size == 100
    assert abs(same) < 3 * deviation < far
    assert precision_recall(a, a) == (1, 1)
    assert precision_recall(a, b + 100) == (0, 0)
    precision, recall = precision_recall(a[:100] * 0.1, b)  # narrow: real, and few of the real ones
    assert precision > 0.95
    assert recall < 0.5


def test_the_kernel_distance_of_a_gpu_is_torch_fidelitys():
    a, b = normal(120, 5), normal(90, 5, 1) * 1.3 + 0.4
    mean, deviation, size = kernel_distance(a, b)
    found = subset_distances(a, b, size)
    assert found.mean().item() == pytest.approx(mean, rel=1e-10)
    assert found.std(correction=0).item() == pytest.approx(deviation, rel=1e-10)


def test_inception_score_of_certain_and_of_uniform_answers():
    labels = torch.arange(500) % 5
    certain = 100 * torch.nn.functional.one_hot(labels, 5).double()
    assert inception_score(certain)[0] == pytest.approx(5, rel=0.05)
    assert inception_score(torch.zeros(500, 5)) == (1, 0)


@pytest.mark.parametrize("n", [10, 11])
def test_random_halves_are_disjoint_and_differ(n):
    splits = list(random_halves(n, 4, seed=0))
    for a, b in splits:
        assert len(a) == len(b) == 5
        assert len(set(a.tolist()) | set(b.tolist())) == 10
    assert len({tuple(sorted(a.tolist())) for a, _ in splits}) > 1


def test_nearest_distances_by_brute_force():
    a, b = (RNG.integers(0, 256, (n, 2, 3, 3)).astype(np.uint8) for n in (4, 6))
    expected = [
        min(np.sqrt(np.mean((to_unit_range(x) - to_unit_range(y)) ** 2)) for y in b) for x in a
    ]
    np.testing.assert_allclose(nearest_distances(a, b), expected, rtol=1e-4)
    assert nearest_distances(b, b).max() < 1e-2


def test_thumbnails_are_means_of_blocks_and_small_images_stay_as_they_are():
    images = RNG.integers(0, 256, (5, 3, 64, 64)).astype(np.uint8)
    found = thumbnails(images, part=2)
    expected = images.reshape(5, 3, 32, 2, 32, 2).astype(float).mean((3, 5))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5
    assert np.array_equal(thumbnails(images[..., :32, :32]), images[..., :32, :32])


# --- feature spaces and their weights


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> Path:
    """Random weights in a file of the real format: numbers mean nothing, the path is the real one."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:  # the constructor insists on loading weights
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "unused")
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    torch.manual_seed(0)
    classifier.save(path, classifier.SmallClassifier(3, 8, 4).eval())
    return path


def test_extractor_gives_the_classifiers_features_through_torch_fidelity(tmp_path):
    path = tmp_path / "digits/manifest.json"
    pack({"source": "digits", "held_out": 360}, tmp_path, 1, path)
    digits = ImageStore(path)
    model = classifier.train_classifier(*digits.split("train"), 10, steps=30, batch=64, seed=0)
    classifier.save(tmp_path / "c.safetensors", model)
    (tmp_path / "any").touch()
    assert (tmp_path / "c.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode
    model = classifier.load(tmp_path / "c.safetensors")  # rounded
    images, labels = digits.split("held_out")
    found, logits = Extractor("fd_digits", tmp_path / "c.safetensors")(images)
    with torch.inference_mode():
        expected, expected_logits = model(torch.from_numpy(to_unit_range(images)))
    torch.testing.assert_close(found, expected.double(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, expected_logits.double(), atol=1e-4, rtol=1e-4)
    agreement = (logits.argmax(1).numpy() == labels).mean()
    assert classifier.accuracy(model, images, labels) == pytest.approx(agreement)
    assert agreement > 0.6  # ten classes; the classifier has learned something in 30 steps


def test_a_classifier_needs_classes():
    images = np.zeros((9, 3, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"2 or more classes; found none .* accepted: fid"):
        classifier.train_classifier(images, np.full(9, -1), -1, steps=1, batch=4, seed=0)


@pytest.mark.slow
def test_inception_gives_fids_features_and_its_first_pool(inception_file):
    images = RNG.integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    extract = Extractor("fid", inception_file)
    found, logits = extract(images)
    assert (found.shape, found.dtype) == ((3, 2048), torch.float64)
    assert logits.shape == (3, 1008)
    assert extract.name == f"inception-v3-compat 2048 {sha256(inception_file)[:12]}"
    extract = Extractor("fd_inception64", inception_file)
    small, none = extract(images)
    assert small.shape == (3, 64)
    assert none is None
    grey = images[:, :1]
    assert torch.equal(extract(grey)[0], extract(grey.repeat(3, axis=1))[0])


OFFICIAL_DINOV2 = [
    [0.53345519, -0.23042545, -0.47334939, -0.42068440, 0.15852983, -1.18846416],
    [0.40974024, -0.25513646, -0.30315647, -0.51500100, 0.15945627, -1.11229932],
]
"""First features of the official network (facebookresearch/dinov2 at b8931f7, dinov2_vits14) with the weights
that `official_weights` gives, on the images of the test below."""


def official_weights(shapes: dict[str, tuple]) -> dict[str, torch.Tensor]:
    rng, found = np.random.RandomState(0), {}
    for key in sorted(shapes):
        shape = shapes[key]
        w = rng.standard_normal(shape)
        if len(shape) in (2, 4):
            w /= np.sqrt(np.prod(shape[1:]))
        else:
            w = 0.1 * w + ("norm" in key and key.endswith("weight"))
        found[key] = torch.from_numpy(w.astype(np.float32))
    return found


@pytest.mark.slow
def test_dinov2_gives_the_official_networks_features_without_running_code(tmp_path, monkeypatch):
    """ViT-S/14 in the official file format; a wrong mean, resize or position offset would show."""
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(features.DinoV2Extractor, "_ARCHITECTURE", "vit_small_patch14_dinov2")
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()} | {"mask_token": (1, 384)}
    weights = official_weights(shapes)
    torch.save(weights, tmp_path / "dino.pth")
    images = (np.arange(2 * 3 * 32 * 32) ** 2 // 7 % 256).astype(np.uint8).reshape(2, 3, 32, 32)
    found, logits = Extractor("fd_dinov2", tmp_path / "dino.pth")(images)
    assert logits is None
    np.testing.assert_allclose(found[:, :6], OFFICIAL_DINOV2, atol=2e-5)
    torch.save({**weights, "code": nn.Linear(1, 1)}, tmp_path / "code.pth")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        Extractor("fd_dinov2", tmp_path / "code.pth")


def test_features_in_memory_are_those_of_the_png_files(
    tmp_path, classifier_file, inception_file, monkeypatch
):
    batch = 4
    monkeypatch.setattr(features, "_BATCH", batch)
    images = RNG.integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)  # more than one batch
    write_store(tmp_path / "s/manifest.json", images, np.arange(6), {})
    assert write_pngs(tmp_path / "s/manifest.json", tmp_path / "png") == 6
    files = sorted(map(str, (tmp_path / "png").iterdir()))
    for metric, file in (("fd_x", classifier_file), ("fd_inception64", inception_file)):
        extract = Extractor(metric, file)
        read = ImagesPathDataset(files)
        expected = get_featuresdict_from_dataset(read, extract.model, batch, False, True, False)
        assert torch.equal(extract(images)[0], expected[extract.layers[0]].double())


def test_samples_are_exported_as_adms_npz(tmp_path):
    images = RNG.integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
    write_store(tmp_path / "s/manifest.json", images, np.arange(5), {})
    assert write_npz(tmp_path / "s/manifest.json", tmp_path / "s.npz") == 5
    found = np.load(tmp_path / "s.npz")
    assert (found["arr_0"].shape, found["arr_0"].dtype) == ((5, 8, 8, 3), np.uint8)
    assert np.array_equal(found["arr_0"][..., 2], images[:, 0])
    assert np.array_equal(found["arr_1"], np.arange(5))


def test_weights_are_where_the_configuration_or_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("DUODIFF_INCEPTION", raising=False)
    file = "weights-inception-2015-12-05-6726825d.pth"
    assert spaces.weights_path("inception", tmp_path, {}) == tmp_path / "weights" / file
    monkeypatch.setenv("DUODIFF_INCEPTION", "/elsewhere/i.pth")
    assert spaces.weights_path("inception", tmp_path, {}) == Path("/elsewhere/i.pth")
    named = spaces.weights_path("inception", tmp_path, {"inception": "mine.pth"})
    assert named == tmp_path / "mine.pth"


def test_other_weights_are_refused_and_absent_ones_named(tmp_path, monkeypatch):
    path, receipt = tmp_path / "weights/inception.pth", tmp_path / "receipt.json"
    nobody = "http://127.0.0.1:9/inception.pth"  # nobody answers there
    known = spaces.Weights("inception.pth", nobody, "0" * 64, "X")
    monkeypatch.setitem(spaces.WEIGHTS, "inception", known)
    with pytest.raises(OSError, match=rf"{path} cannot be downloaded .* it is found at {nobody}"):
        weights.fetch_weights("inception", path, receipt)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something else")
    expected = f"extractors.inception: .* has sha256 {sha256(path)}, expected {'0' * 64}"
    with pytest.raises(ValueError, match=expected):
        weights.fetch_weights("inception", path, receipt)
    for found, content in STAND_INS.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: found {found} in place of the file"):
            weights.fetch_weights("inception", path, receipt)
    path.write_bytes(b"something else")
    assert not receipt.exists()
    known = spaces.Weights("inception.pth", nobody, sha256(path), "X")
    monkeypatch.setitem(spaces.WEIGHTS, "inception", known)
    assert weights.fetch_weights("inception", path, receipt)["file"] == "inception.pth"


# --- references


class Known:
    """An extractor whose features of an image are a row of a table, named by the image's first pixels."""

    name, metric, transform, features, device = "known 3 0123", "fd_known", "none", 3, "cpu"
    libraries = ("torch-fidelity",)

    def __init__(self, table: torch.Tensor):
        self.table, self.calls = table, 0

    def __call__(self, images):
        self.calls += 1
        index = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        return self.table[torch.from_numpy(index % len(self.table))], None


def numbered(first: int, count: int) -> np.ndarray:
    """uint8 images [count, 1, 2, 2] that `Known` tells apart."""
    images = np.zeros((count, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(first, first + count), 256)
    return images


def dataset(path: Path, count: int, held_out: int) -> Path:
    splits = {"train": [0, count - held_out], "held_out": [count - held_out, count]}
    write_store(path, numbered(0, count), np.full(count, -1), {"splits": splits})
    return path


def test_a_distance_of_stores_is_the_closed_form(tmp_path):
    """2,000 training images in two parts, 500 samples, Gaussian features of known moments: to 1e-6."""
    scale, shift = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([0.3, 0.0, -1.0]).double()
    train, held_out, samples = whitened(2000, 3), normal(100, 3), whitened(500, 3, 1)
    extract = Known(torch.cat([train, held_out, samples * scale + shift]))
    data = dataset(tmp_path / "data/manifest.json", 2100, 100)
    compute_reference(data, extract, None, tmp_path / "statistics", tmp_path / "r.json")
    reference = load_reference(tmp_path / "r.json", Known.name)
    assert reference.all_train.n == 2000
    np.testing.assert_allclose(reference.all_train.sigma, np.eye(3), atol=1e-12)
    evaluation = Evaluation(
        data, extract, reference, study=STUDY, images=500, checkpoints=CHECKPOINTS
    )
    written = sample_store(tmp_path, "t_s=0", numbered(2100, 500))
    found, _ = evaluation.of_study([written])
    distance = next(r for r in found if r.metric == "fd_known")
    expected = (shift.square().sum() + (scale - 1).square().sum()).item()
    assert distance.value == pytest.approx(expected, rel=1e-6)
    assert (distance.n, distance.reference_n) == (500, 2000)


def test_references_are_computed_once_for_the_same_images_weights_and_transform(tmp_path):
    extract, folder = Known(normal(400, 3)), tmp_path / "statistics"
    one = dataset(tmp_path / "one/manifest.json", 400, 50)
    first = compute_reference(one, extract, 100, folder, tmp_path / "r.json")
    calls = extract.calls
    again = dataset(tmp_path / "another/name/manifest.json", 400, 50)
    assert compute_reference(again, extract, 100, folder, tmp_path / "s.json") == first
    assert extract.calls == calls  # nothing was computed
    extract.transform = "another"
    other = compute_reference(one, extract, 100, folder, tmp_path / "t.json")
    assert extract.calls == 2 * calls
    assert not set(other["files"].values()) & set(first["files"].values())
    smaller = compute_reference(one, extract, 90, folder, tmp_path / "u.json")
    assert smaller["files"]["all_train"] == other["files"]["all_train"]
    assert smaller["files"]["features"] != other["files"]["features"]
    with pytest.raises(ValueError, match=r"metric.reference: found 351; accepted: up to the 350"):
        compute_reference(one, extract, 351, folder, tmp_path / "v.json")


def test_a_reference_of_other_weights_or_without_its_files_is_refused(tmp_path):
    data, receipt = dataset(tmp_path / "data/manifest.json", 400, 50), tmp_path / "r.json"
    few = dataset(tmp_path / "few/manifest.json", 53, 50)
    expected = r"metric.name: known 3 0123 has 3 features; accepted: .* more .* \(found 3; see its"
    with pytest.raises(ValueError, match=expected):
        compute_reference(few, Known(normal(60, 3)), None, tmp_path / "st", receipt)
    found = compute_reference(data, Known(normal(400, 3)), 100, tmp_path / "st", receipt)
    with pytest.raises(ValueError, match="extractor is known 3 0123, expected other"):
        load_reference(receipt, "other")
    file = tmp_path / "st" / found["files"]["features"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ValueError, match=r"is not what .*r.json describes; remove both"):
        load_reference(receipt, Known.name)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"missing; remove .*r.json to have it computed"):
        load_reference(receipt, Known.name)


# --- evaluation of sample stores

STUDY = {"experiment": "e", "protocol": "corrected", "train_seed": 0}
MADE = {"code": "c" * 64, "device": "another machine", "libraries": {"torch": "1"}}
CHECKPOINTS = {"full": "a" * 64, "shallow": "b" * 64}


def sample_store(folder: Path, setting: str, images: np.ndarray, **changes) -> Path:
    t_s = int(setting.removeprefix("t_s="))
    role = "full" if t_s == 0 else "shallow"
    manifest = STUDY | {
        "method": role,
        "parameters": {"t_s": t_s},
        "sampler": {"name": "ddpm", "steps": 5},
        "nfe": 5,
        "seed": 0,
        "dtype": "float32",
        "compiled": False,
        "compute_batch": 8,
        "checkpoint_sha256": {role: CHECKPOINTS[role]},
        "made": MADE,
    }
    path = folder / setting / "manifest.json"
    write_store(path, images, np.full(len(images), -1), manifest | changes)
    return path


@pytest.fixture
def evaluation(tmp_path) -> Evaluation:
    table = torch.cat([normal(600, 3), normal(100, 3, 1) * 1.1, normal(100, 3, 2) * 2])
    extract = Known(table)
    data = dataset(tmp_path / "data/manifest.json", 600, 100)
    compute_reference(data, extract, 200, tmp_path / "statistics", tmp_path / "r.json")
    reference = load_reference(tmp_path / "r.json", Known.name)
    return Evaluation(data, extract, reference, study=STUDY, images=100, checkpoints=CHECKPOINTS)


def test_cells_of_fewer_steps_differ_from_the_full_backbone_at_all_steps(
    evaluation, tmp_path, monkeypatch
):
    monkeypatch.setattr("duodiff.metrics.evaluation.images_to_extrapolate", lambda metric: 8)
    few = {"sampler": {"name": "ddpm", "steps": 3}, "nfe": 3}
    paths = [
        sample_store(tmp_path / "3", "t_s=0", numbered(700, 100), **few),
        sample_store(tmp_path / "3/1", "t_s=0", numbered(700, 100), **few, seed=1),
        sample_store(tmp_path / "3", "t_s=1000", numbered(620, 100), **few),
        sample_store(tmp_path, "t_s=0", numbered(600, 100)),
        sample_store(tmp_path / "1", "t_s=0", numbered(650, 100), seed=1),
    ]
    found, curves = evaluation.of_study(paths)
    values = {(r.method, r.steps, r.seeds["sample_seed"], r.metric): r.value for r in found
              if isinstance(r.seeds["sample_seed"], int)}  # fmt: skip
    own = values["full", 5, 0, "fd_known"]
    for method in ("full", "shallow"):
        difference = values[method, 3, 0, "fd_known_difference"]
        assert difference == pytest.approx(values[method, 3, 0, "fd_known"] - own)
    assert ("full", 5, 0, "fd_known_difference") not in values
    spreads = {r.steps: r.value for r in found if r.metric == "fd_known_spread"}
    assert spreads[3] == 0  # the same images under both seeds, and none of 5 steps among them
    assert spreads[5] == pytest.approx(np.std([own, values["full", 5, 1, "fd_known"]], ddof=1))
    assert len(curves) == 2 * 15
    assert {row["sample_seed"] for row in curves} == {0, 1}


def test_every_metric_of_a_study_with_its_interval(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr("duodiff.metrics.evaluation.images_to_extrapolate", lambda metric: 8)
    shallow = sample_store(tmp_path, "t_s=1000", numbered(700, 100))
    full = sample_store(tmp_path, "t_s=0", numbered(600, 100))
    found, curves = evaluation.of_study([shallow, full])
    values = {(r.method, r.metric): r for r in found}
    reference, standard = (values["full", m] for m in ("fd_known", "fd_known_standard"))
    assert (reference.reference_n, standard.reference_n) == (200, 500)
    features = {name: evaluation.extract(ImageStore(p).images)[0] for name, p in
                (("full", full), ("shallow", shallow))}  # fmt: skip
    assert set(reference.made["libraries"]) >= {"torch", "numpy", "torch-fidelity"}
    assert reference.made["of"]["samples"] == MADE
    all_train = evaluation.reference.all_train
    expected = frechet_distance(gaussian(features["full"]), all_train)
    assert standard.value == pytest.approx(expected)
    assert ("full", "fd_known_difference") not in values
    difference = values["shallow", "fd_known_difference"]
    to = evaluation.to_reference
    assert difference.value == pytest.approx(to(features["shallow"]) - to(features["full"]))
    assert difference.interval[0] < difference.value < difference.interval[1]
    assert "95%" in difference.interval_covers
    assert "paired resamples" in difference.interval_covers
    assert np.mean(difference.resampled) == pytest.approx(difference.value, abs=0.1)
    assert len(difference.resampled) == RESAMPLES
    same = values["shallow", "fd_known_same_noise"].value
    assert same == pytest.approx(same_noise_bound(features["shallow"], features["full"]))
    for metric in (
        "kd_known",
        "precision",
        "recall",
        "nearest_train_distance_q01",
        "nearest_train_distance_q05",
        "fd_known_infinity",
    ):
        assert np.isfinite(values["shallow", metric].value)
    assert len(curves) == 2 * 15
    assert {row["t_s"] for row in curves} == {0, 1000}
    scale = {(r.method, r.metric): r for r in evaluation.of_scale()}
    assert {method for method, _ in scale} == {"real_halves", "real_held_out", "noise"}
    assert scale["real_halves", "fd_known_matched"].reference_n == 150  # of 200 and 100 held out


def test_too_few_real_images_for_a_floor_leave_the_rest(evaluation):
    """As many features as half the real images: no halves, and no distance of the held-out images."""
    evaluation.halves, evaluation.dim = [], 100
    scale = {(r.method, r.metric) for r in evaluation.of_scale()}
    assert ("real_held_out", "nearest_train_distance_q01") in scale
    assert ("real_held_out", "fd_known") not in scale
    assert ("noise", "fd_known") in scale
    assert "real_halves" not in {method for method, _ in scale}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "other"}, "experiment is 'other', expected 'e'"),
        ({"protocol": "paper"}, "protocol is 'paper', expected 'corrected'"),
        ({"train_seed": 3}, "train_seed is 3, expected 0"),
        ({"checkpoint_sha256": {"full": "f" * 64}}, r"another full checkpoint \(ffffffffffff\)"),
        ({"images_sha256": "0" * 64}, "images.npy is not the file the manifest describes"),
        ({"labels_sha256": "0" * 64}, "labels.npy is not the file the manifest describes"),
    ],
)
def test_foreign_stale_and_changed_samples_are_refused(evaluation, tmp_path, changes, message):
    path = sample_store(tmp_path, "t_s=0", numbered(600, 100))
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=message):
        evaluation.of_study([path])


def test_too_few_samples_and_features_that_are_not_finite_are_refused(
    evaluation, tmp_path, classifier_file
):
    path = sample_store(tmp_path, "t_s=0", numbered(600, 99))
    with pytest.raises(ValueError, match="found 99 images, expected 100"):
        evaluation.of_study([path])
    model = classifier.load(classifier_file)
    nn.init.constant_(model.features.bias, torch.nan)
    classifier.save(tmp_path / "nan.safetensors", model)
    with pytest.raises(ValueError, match=r"features of classifier .* are not finite"):
        Extractor("fd_x", tmp_path / "nan.safetensors")(np.zeros((2, 3, 8, 8), np.uint8))


# --- Inception on real images, end to end


@pytest.mark.slow
def test_inception_from_a_zip_to_records(tmp_path, inception_file, monkeypatch):
    """90 images (CIFAR-10's where they are at hand, else made), Inception's real path with random weights:
    statistics cached, reused, and not reused for another transform."""
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        for name, content in _pictures(90):
            few.writestr(name, content)
    section = {"source": "images", "path": "few.zip", "crop": "square", "size": 32}
    section |= {"filter": "box", "channels": 3, "held_out": 10}
    extract, folder = Extractor("fd_inception64", inception_file), tmp_path / "statistics"

    def reference(section: dict, name: str) -> dict:
        manifest = tmp_path / name / "manifest.json"
        pack(section, tmp_path, 1, manifest)
        return compute_reference(manifest, extract, 70, folder, tmp_path / f"{name}.json")

    first = reference(section, "one")
    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "__call__", lambda *a: pytest.fail("computed again"))
        assert reference(section, "again") == first
    with monkeypatch.context() as patch:  # computed again: which features is not looked at
        patch.setattr(Extractor, "__call__", lambda _, images: (normal(len(images), 64), None))
        other = reference(section | {"size": 16}, "smaller")
    assert not set(other["files"].values()) & set(first["files"].values())
    data = tmp_path / "one/manifest.json"
    loaded = load_reference(tmp_path / "one.json", extract.name)
    about = {"study": STUDY, "images": 70, "checkpoints": CHECKPOINTS}
    evaluation = Evaluation(data, extract, loaded, **about)
    images = RNG.integers(0, 256, (70, 3, 32, 32)).astype(np.uint8)
    blurred = np.stack([_blurred(image) for image in images])
    paths = [
        sample_store(tmp_path, "t_s=0", np.array(ImageStore(data).images[:70])),
        sample_store(tmp_path, "t_s=1000", blurred),
    ]
    found, _ = evaluation.of_study(paths)
    real, made = (r.value for r in found if r.metric == "fd_inception64")
    assert made > 5 * real
    assert {r.metric for r in found} >= {"fd_inception64_standard", "kd_inception64", "recall"}


def _pictures(count: int):
    """Names and contents of `count` image files."""
    if CIFAR.exists():
        with zipfile.ZipFile(CIFAR) as source:
            for name in [n for n in source.namelist() if n.endswith(".jpg")][::41][:count]:
                yield name, source.read(name)
        return
    for i in range(count):
        pixels = RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((32, 32)).save(buffer, "png")
        yield f"{i % 10}/{i}.png", buffer.getvalue()


def _blurred(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image.transpose(1, 2, 0)).resize((8, 8), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.resize((32, 32)).save(buffer, "png")
    return np.array(Image.open(buffer)).transpose(2, 0, 1)
