"""`python -m duodiff cost`: operations against torch's own count, and hours against a bench record."""

import copy
import dataclasses
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from unit.image_files import png, write_folder

from duodiff.analysis import cost
from duodiff.backbones import FixedExit
from duodiff.early_exit import AdaDiff
from duodiff.metrics.flops import exit_gflops, gflops, parameters
from duodiff.operations import network
from duodiff.settings import Setting
from duodiff.study import config as configuration
from duodiff.study.grid import backbone_architecture, grid_points
from duodiff.uvit import Denoiser, UViT

ROOT = Path(__file__).parents[3]
PAPER = configuration.complete(
    yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
)
SMALL = {
    "img_size": 6,
    "patch_size": 2,
    "in_chans": 3,
    "embed_dim": 14,
    "depth": 5,
    "num_heads": 7,
    "mlp_ratio": 3,
    "qkv_bias": True,
    "mlp_time_embed": True,
    "num_classes": 11,
    "conv": False,
}
OTHERS = {"qkv_bias": False, "mlp_time_embed": False, "num_classes": -1, "conv": True}


@pytest.mark.parametrize(
    ("architecture", "timestep_aware"),
    [
        (SMALL, False),
        (SMALL | OTHERS, True),
        *(
            pytest.param(
                backbone_architecture(PAPER["experiments"][name], role),
                True,
                id=f"{name}, {role}",
                marks=pytest.mark.slow,
            )
            for name in cost.ARCHITECTURES
            for role in ("full", "shallow")
        ),
    ],
)
def test_operations_and_parameters_are_those_that_torch_counts(architecture, timestep_aware):
    found = network(architecture, timestep_aware)
    with torch.device("meta"):
        net = UViT(**architecture)
        model = AdaDiff(net, timestep_aware)
    assert found.forward == gflops(net) * 1e9
    assert found.parameters == parameters(net)
    assert found.output_head == parameters(model.output_heads[0])
    every_head = gflops(net, model.all_layers) * 1e9
    assert found.all_heads == every_head
    exits = [found.exiting(layer) for layer in range(len(found.blocks) + 1)]
    assert exits == pytest.approx([1e9 * g for g in exit_gflops(model)], rel=1e-12)


def test_an_exit_costs_the_blocks_before_it_the_uncertainties_up_to_it_and_one_output_head():
    found = network(SMALL)
    u, block = found.uncertainty, found.blocks[-1]
    assert found.exiting(0) == found.embed + u + found.decode
    assert found.exiting(5) == found.forward + 5 * u
    assert found.exiting(3.5) == pytest.approx(found.forward + 4.5 * u - 1.5 * block)


@pytest.mark.parametrize("layer", range(SMALL["depth"] + 1))
def test_a_batch_that_shrinks_runs_what_an_exit_is_said_to_cost(layer):
    model = AdaDiff(UViT(**SMALL)).eval()
    for i, head in enumerate(model.uncertainty_heads):
        torch.nn.init.zeros_(head.linear.weight)
        torch.nn.init.constant_(head.linear.bias, 9.0 if i < layer else -9.0)
    found = gflops(model.uvit, partial(model, theta=0.5))
    assert found == pytest.approx(network(SMALL).exiting(layer) / 1e9, rel=1e-12)


def test_a_cell_makes_the_calls_of_its_sampler_and_switch():
    experiments = copy.deepcopy(PAPER["experiments"])
    for experiment in experiments.values():
        experiment["grid"]["dpm_solver_pp"] = {"steps": 20, "fewer_steps": []}
        experiment["grid"]["ddpm"]["fewer_steps"] = [{"steps": 50, "t_s": [0, 300]}]
    full, shallow = (
        network(backbone_architecture(experiments["cifar10"], role)).forward
        for role in ("full", "shallow")
    )

    def calls(name, *cell):
        found = cost._calls(experiments[name], cell[0], Setting.parse(cell[1]))
        return found.count(shallow), found.count(full), len(found)

    assert calls("cifar10", "ddpm", "t_s=0") == (0, 1000, 1000)
    assert calls("cifar10", "ddpm", "t_s=300") == (300, 700, 1000)
    assert calls("cifar10", "ddpm/steps=50", "t_s=300") == (15, 35, 50)
    assert calls("cifar10", "ddim", "t_s=300") == (15, 35, 50)
    assert calls("cifar10_released", "ddim", "t_s=300") == (16, 33, 49)
    for name in ("cifar10", "cifar10_released"):  # no protocol departs from it
        assert calls(name, "dpm_solver_pp", "t_s=300") == (6, 14, 20)
    exits = cost._calls(experiments["celeba64"], "ddpm", Setting.parse("theta=0.08"))
    net = network(experiments["celeba64"]["backbone"])
    assert exits == [net.exiting(9.09)] * 1000  # Table 2
    unknown = cost._calls(experiments["cifar10_v"], "ddpm", Setting.parse("theta=q0.25"))
    assert unknown == [network(experiments["cifar10_v"]["backbone"]).exiting(13)] * 1000


def test_the_timing_runs_a_part_of_each_trajectory_beside_the_full_backbones():
    experiment = copy.deepcopy(PAPER["experiments"]["celeba64"])
    grid = {"steps": 1000, "t_s": [0, 300], "theta": [0.08], "schedules": [], "fewer_steps": []}
    experiment["grid"], experiment["latency"]["repeats"] = {"ddpm": grid}, 12
    full, shallow = (
        network(backbone_architecture(experiment, role)) for role in ("full", "shallow")
    )
    switched = 700 * full.forward + 300 * shallow.forward
    exiting = 1000 * full.exiting(9.09)
    cells = switched + exiting + 1000 * (full.all_heads + full.exiting(13))
    for device, steps in (("cpu", 4), ("cuda", 20)):
        found = cost._timed(experiment, "ddpm", device)
        rounds = 12 * steps / 1000 * (cells + 4 * 1000 * full.forward)
        assert found == pytest.approx(rounds + exiting)


def test_a_named_schedule_costs_the_calls_of_its_networks():
    experiment = copy.deepcopy(PAPER["experiments"]["celeba64"])
    experiment["networks"] = {
        "middle": {"depth": 7},
        "early": {"exit": 4},
        "guided": {"network": "full", "by": "shallow", "weight": 1.0},
    }
    cuts = [("shallow", 500, 999), ("middle", 300, 499), ("early", 200, 299)]
    cuts += [("guided", 100, 199), ("full", 0, 99)]
    intervals = [{"network": name, "t": [low, high]} for name, low, high in cuts]
    experiment["schedules"] = {
        "every": {"intervals": intervals},
        "own": {"intervals": intervals, "timesteps": [999, 450, 250, 150, 0]},
    }
    experiment["budgets"] = {"thrifty": {"operations": 0.7, "choose": "steps"}}
    nets = {d: UViT(**experiment["backbone"] | {"depth": d}) for d in (3, 7, 13)}
    shallow, middle, full = (1e9 * gflops(net) for net in nets.values())
    adadiff = AdaDiff(nets[13])
    early = 1e9 * gflops(nets[13], FixedExit(adadiff, 4, Denoiser(nets[13])).compute)
    each = [shallow, middle, early, full + shallow, full]

    def calls(name: str) -> list[float]:
        return cost._calls(experiment, "ddpm", Setting.parse(f"schedule={name}"))

    counts = [500, 200, 100, 100, 100]
    expected = [cost for n, cost in zip(counts, each, strict=True) for _ in range(n)]
    assert calls("every") == pytest.approx(expected, rel=1e-9)
    assert calls("own") == pytest.approx(each, rel=1e-9)
    assert sum(calls("thrifty")) == pytest.approx(0.7 * 1000 * full, rel=1e-9)


def test_each_further_network_is_a_training():
    config = copy.deepcopy(PAPER) | {"only": ["celeba64"]}
    experiment = config["experiments"]["celeba64"]

    def trainings() -> int:
        return sum(w.jobs for w in cost.works(config)["celeba64"] if w.kind == "training")

    before = trainings()
    experiment["networks"] = {"middle": {"depth": 7}, "early": {"exit": 4}}
    assert trainings() == before + len(experiment["train_seeds"])  # the heads are trained anyway


def test_a_training_is_its_images_forward_and_twice_that_back():
    found = cost.works(PAPER)["cifar10"]
    full, shallow, heads, *_ = [w for w in found if w.kind == "training"]
    assert full.operations == pytest.approx(500_000 * 128 * 3 * 24.40e9, rel=1e-3)
    assert shallow.operations == pytest.approx(500_000 * 128 * 3 * 5.53e9, rel=1e-3)
    assert full.bytes == pytest.approx(4 * 44.26e6, rel=1e-3)
    assert (
        100_000 * 128 * 24.3e9 < heads.operations < 100_000 * 128 * 25e9
    )  # the backbone is frozen


def test_a_classifier_is_one_job_of_its_dataset_for_all_its_experiments():
    config = configuration.complete(
        yaml.safe_load((ROOT / "config/test.yaml").read_text(encoding="utf-8"))
    )
    found = cost.works(config | {"only": ["digits"]})["dataset digits"]
    assert [(w.kind, w.jobs) for w in found if w.jobs] == [("other", 1), ("training", 1)]
    assert all(w.kind != "training" or not w.jobs for w in cost.works(PAPER)["dataset cifar10"])


def test_models_that_are_reused_are_trained_once_and_where_they_belong():
    found = cost.works(PAPER | {"only": ["cifar10_released"]})
    assert set(found) == {"cifar10", "cifar10_released", "dataset cifar10"}
    assert [(w.kind, w.jobs) for w in found["cifar10"]] == [("training", 1), ("training", 1)]
    assert [w.jobs for w in found["cifar10_released"] if w.kind == "training"] == [1]


@pytest.fixture
def bench(tmp_path) -> Path:
    rates = {
        "device": "Made GPU",
        "dtype": "bfloat16",
        "sampling_flops_per_s": {"S/2": 1e14, "S/4": 2e14, "M/4": 3e14, "L/2": 4e14},
        "training_flops_per_s": {"S/2": 5e13, "S/4": 6e13, "M/4": 7e13, "L/2": 8e13},
        "startup_s": 36.0,
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rates": rates}), encoding="utf-8")
    return path


def rows(text: str) -> dict[str, dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head, _, *body = lines
    return {line[0]: dict(zip(head, line, strict=True)) for line in body}


def test_hours_are_operations_at_the_benchs_rates_and_the_start_of_every_job(bench, tmp_path):
    only = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8")) | {
        "only": "celeba64"
    }
    config = tmp_path / "one.yaml"
    config.write_text(yaml.safe_dump(only), encoding="utf-8")
    found = rows(cost.describe(config, bench))["celeba64"]
    work = cost.works(configuration.complete(only))["celeba64"]
    training = sum(w.operations for w in work if w.kind == "training")
    rest = sum(w.operations for w in work if w.kind != "training")
    starting = sum(w.jobs for w in work) * 36 / 3600
    hours = training / 6e13 / 3600 + rest / 2e14 / 3600 + starting
    assert float(found["GPU hours"]) == pytest.approx(hours, rel=6e-3)  # three digits
    assert float(found["start-up %"]) == pytest.approx(100 * starting / hours, rel=6e-3)


def test_another_architecture_takes_the_nearest_rates_and_says_so(bench):
    text = cost.describe(ROOT / "config/config.yaml", bench)
    assert "digits: at the rates of S/2, the nearest in operations." in text
    assert "Made GPU (bfloat16), 36 s" in text


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("threads: 1\n  device: cpu\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: .*\n.*line 2"):
        cost.describe(tmp_path / "mine.yaml", None)


def test_a_dataset_whose_size_only_its_files_tell_is_named():
    text = cost.describe(ROOT / "config/cifar10_cpu.yaml", None)
    assert "dataset cifar10_jpeg: its images are left out" in text


def test_own_images_decide_what_their_networks_cost(tmp_path):
    written = yaml.safe_load((ROOT / "config/own_images.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "mine.yaml"

    def described(classes: int) -> dict[str, str]:
        files = {f"photos/{i % classes}/{i}.png": png() for i in range(330)}
        written["data"] = str(write_folder(tmp_path / str(classes), files))
        path.write_text(yaml.safe_dump(written), encoding="utf-8")
        return rows(cost.describe(path, None))["own_images"]

    assert float(described(3)["disk GB"]) < float(described(300)["disk GB"])
    written["data"] = str(tmp_path / "nowhere")
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(ValueError, match=r"datasets.own.path: .*photos is missing"):
        cost.describe(path, None)


def test_without_a_bench_there_are_no_hours_and_without_torch_the_rest():
    run = (
        "import sys; from pathlib import Path; from duodiff.analysis import cost;"
        "print(cost.describe(Path('config/config.yaml'), None), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", run]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert "GPU hours" not in done.stdout
    assert "Hours: --gpu A100 for an estimate, or make bench on the device" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_configuration_of_the_cpu_speaks_of_no_gpu_and_in_readable_units():
    text = cost.describe(ROOT / "config/config.yaml", None)
    assert "EFLOP" not in text
    assert "GPU jobs" not in text
    found = rows(text)["digits"]
    work = cost.works(configuration.read(ROOT / "config/config.yaml"))["digits"]
    training = sum(w.operations for w in work if w.kind == "training")
    assert float(found["training TFLOP"]) == pytest.approx(training / 1e12, rel=6e-3)
    assert 1 < float(found["training TFLOP"]) < 1e5
    assert "GPU jobs" in cost.describe(ROOT / "config/paper.yaml", None)


def test_hours_on_another_gpu_are_those_of_its_peak_and_say_that_they_are_estimated(
    bench, tmp_path
):
    texts = {gpu: cost.describe(ROOT / "config/paper.yaml", None, gpu) for gpu in ("H100", "a100")}
    hours, jobs = (
        {gpu: float(rows(text)["cifar10"][column]) for gpu, text in texts.items()}
        for column in ("GPU hours", "GPU jobs")
    )
    working = {gpu: hours[gpu] - jobs[gpu] * 20 / 3600 for gpu in hours}
    assert working["a100"] / working["H100"] == pytest.approx(989 / 312, rel=1e-2)
    assert "Hours on one A100" in texts["a100"]
    assert "For the a100 nothing is measured" in texts["a100"]
    assert "nothing is measured" not in texts["H100"]
    assert "5 to 8 times" in texts["a100"]  # protocol `paper` samples in float32
    only = {"only": "cifar10"} | yaml.safe_load(
        (ROOT / "config/paper.yaml").read_text(encoding="utf-8")
    )
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(only), encoding="utf-8")
    assert "5 to 8 times" not in cost.describe(tmp_path / "one.yaml", None, "A100")
    assert "5 to 8 times" in cost.describe(ROOT / "config/config.yaml", None, "A100")
    with pytest.raises(ValueError, match="gpu: found 'B7'; accepted: A10, A100, "):
        cost.rates_of_gpu("B7")
    with pytest.raises(ValueError, match="one of --bench and --gpu"):
        cost.describe(ROOT / "config/paper.yaml", bench, "A100")


def test_hours_on_the_h100_are_those_of_the_steps_that_were_measured_there():
    rates, steps, batch = cost.rates_of_gpu("h100"), 1000, 128
    for dataset, name, eager_ms, compiled_ms in (
        ("cifar10", "S/2", 17.0213037, 11.5175734),
        ("imagenet256", "L/2", 58.03559915, 46.14394314),
    ):
        net = network(backbone_architecture(PAPER["experiments"][dataset], "full"))
        work = cost.Work("sampling", 1, steps * batch * net.forward)
        for compiled, ms in ((False, eager_ms), (True, compiled_ms)):
            found = rates.hours(dataclasses.replace(work, compiled=compiled), name)
            assert found == pytest.approx(steps * ms / 1e3 / 3600)
    net = network(backbone_architecture(PAPER["experiments"]["cifar10"], "full"))
    work = cost.Work("training", 1, 3 * steps * batch * net.forward)
    assert rates.hours(work, "S/2") == pytest.approx(steps * 0.056 / 3600)


def test_what_is_measured_on_the_h100_and_what_is_not_is_named():
    text = cost.describe(ROOT / "config/paper.yaml", None, "H100")
    assert "Rates measured on one NVIDIA H100 80GB HBM3 (2026-11-28, commit 3a49dd8, " in text
    known = "sampling L/2, S/2; compiled sampling L/2, S/2; training S/2. "
    missing = "sampling M/4, S/4; compiled sampling M/4, S/4; training L/2, M/4, S/4."
    assert f"{known}Not measured, but set between these: {missing}" in text
    every = cost.all_rates()
    assert set(every) == {"sampling", "compiled sampling", "training"}
    for kind, measured in cost.measured_rates().items():
        assert set(every[kind]) == set(cost.ARCHITECTURES.values())
        assert every[kind] | measured == every[kind]
        assert min(measured.values()) <= every[kind]["M/4"] <= every[kind]["L/2"]


def test_the_starts_that_one_job_for_all_cells_spares_are_told():
    text = cost.describe(ROOT / "config/cifar10_gpu.yaml", None, "H100")
    config = configuration.complete(
        yaml.safe_load((ROOT / "config/cifar10_gpu.yaml").read_text(encoding="utf-8"))
    )
    cells = len(grid_points(config["experiments"]["cifar10_gpu"]))
    seconds = float(re.search(r"([\d.]+) s of start-up a job", text)[1])
    spared = f"spare {cells - 1} starts, {(cells - 1) * seconds / 3600:.3g} of these hours"
    assert spared in text


def test_cells_of_compiled_networks_are_compiled_but_for_early_exits():
    config = copy.deepcopy(PAPER) | {"only": ["cifar10"]}
    assert not any(w.compiled for w in cost.works(config)["cifar10"])
    experiment = config["experiments"]["cifar10"]
    experiment["sampling"]["compiled"] = True
    found = [w.compiled for w in cost.works(config)["cifar10"] if w.kind == "sampling"]
    exits = [p.setting.exits_early for p in grid_points(experiment)]
    assert found == [not early for early in exits]
    assert {True, False} == set(found)


def test_a_bench_without_the_rates_is_refused(bench):
    record = json.loads(bench.read_text(encoding="utf-8"))

    def refused(content: dict, message: str) -> None:
        bench.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            cost.read_rates(bench)

    rates = record["rates"]
    refused({}, "it has no rates; make bench writes them")
    refused({"rates": {k: v for k, v in rates.items() if k != "dtype"}}, "rates: missing dtype")
    fewer = rates | {"sampling_flops_per_s": {"S/2": 1e14, "S/4": 1e14}}
    refused({"rates": fewer}, r"rates.sampling_flops_per_s: missing L/2, M/4")
