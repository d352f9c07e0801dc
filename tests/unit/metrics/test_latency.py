"""Times of cells, and the operations, memory and energy they need."""

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from unit.tiny_study import DDPM, NET, STUDY, USED, loaded

from duodiff import samplers
from duodiff.metrics import latency, rounds
from duodiff.metrics.bootstrap import RESAMPLES
from duodiff.metrics.resources import energy_meter, peak_bytes
from duodiff.operations import network
from duodiff.sampling import models
from duodiff.sampling.cells import build_cell
from duodiff.sampling.generation import sample_batch
from duodiff.sampling.models import Models
from duodiff.settings import Setting

TIMED = STUDY | {"protocol": "corrected", "batch": 4, "threads": 1, "seed": 0, "device": "cpu"}

MECHANISMS = ("adadiff_all_heads", "adadiff_none_exit")


@pytest.fixture
def clocked(monkeypatch):
    """Whether the clock had been read, for each call of the sampling loop, by its number of steps."""
    calls, read = [], []
    clock, integrate = latency._clock, samplers.integrate

    def reading(device):
        read.append(device)
        return clock(device)

    def counted(schedule, steps, *arguments, **keywords):
        calls.append((len(steps), bool(read)))
        return integrate(schedule, steps, *arguments, **keywords)

    monkeypatch.setattr(latency, "_clock", reading)
    monkeypatch.setattr(samplers, "integrate", counted)
    return calls


@pytest.mark.parametrize(("protocol", "warm_ups"), [("corrected", 4), ("paper", 0)])
def test_the_clock_starts_after_a_warm_up_where_the_protocol_has_one(
    paths, protocol, warm_ups, clocked
):
    grid = [[DDPM, ["t_s=0", "t_s=1000", "theta=0.4"]]]  # and AdaDiff without exits, twice
    timed = TIMED | {"protocol": protocol, "repeats": 1}
    records = latency.measure_cells(paths, USED, grid, **timed)
    before = [steps for steps, read in clocked if not read]
    # AdaDiff's trajectory; then the four cells and their baselines, in turns of a step
    assert before == [10] + [1] * rounds.TURNS * 2 * warm_ups
    assert {r.protocol for r in records} == {protocol}


def test_a_cells_seconds_are_the_full_backbones_over_its_speed_up(paths):
    ddim = {"name": "ddim", "steps": 6, "eta": 0}
    grid = [[DDPM, ["t_s=0", "t_s=400", "theta=0.4"]], [ddim, ["t_s=0", "t_s=400"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    for prefix, suffix in (("", ""), ("processor_", "_processor")):
        ratios = {(r.sampler, r.method): r for r in records if r.metric == f"speedup{suffix}"}
        seconds = {
            (r.sampler, r.method): r for r in records if r.metric == f"{prefix}seconds_per_image"
        }
        assert set(ratios) == set(seconds)
        assert {m for s, m in ratios if s == "ddpm"} == {
            "full",
            "duodiff",
            "adadiff",
            "adadiff_all_heads",
            "adadiff_none_exit",
        }
        for (sampler, method), ratio in ratios.items():
            full = seconds[sampler, "full"].value
            assert seconds[sampler, method].value == pytest.approx(full / ratio.value, rel=1e-12)
            assert ratio.interval[0] <= ratio.value <= ratio.interval[1]
            assert isinstance(ratio.disturbed, bool)
            assert (ratio.value == 1) == (method == "full")
    assert len(ratios["ddpm", "duodiff"].interval_covers) > 0
    wall = next(r for r in records if r.metric == "speedup" and r.method == "duodiff")
    assert len(wall.resampled) == RESAMPLES


def test_a_device_without_processor_time_has_no_records_of_it(paths, monkeypatch):
    monkeypatch.setattr(latency, "_clock", lambda device: np.array([time.perf_counter()]))
    grid = [[DDPM, ["t_s=0", "t_s=400"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    assert "speedup" in {r.metric for r in records}
    assert not [r.metric for r in records if "processor" in r.metric]


def test_decoding_is_timed_apart_from_denoising(latent, monkeypatch):
    _, paths, codec = latent
    decode, decoded = codec.decode, []

    def counted(latents):
        decoded.append(len(latents))
        return decode(latents)

    monkeypatch.setattr(codec, "decode", counted)
    monkeypatch.setattr(rounds, "MOST", 1)
    grid = [[DDPM, ["t_s=0", "theta=0.4"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2, autoencoder=codec)
    (record,) = [r for r in records if r.method == "decode"]
    assert (record.metric, record.unit, record.n) == ("decode_seconds_per_image", "s", 4)
    assert record.interval[0] <= record.value <= record.interval[1]
    assert record.compute_batch == codec.batch == 3
    assert record.checkpoint_sha256 == {"autoencoder": codec.source["weights_sha256"]}
    # one of its batches in a warm-up and in two rounds; and the two ways to exit; none for any method's time
    assert decoded == [3] * (1 + 2) + [4] * 2


def test_timings_say_the_precision_they_were_measured_in(paths):
    records = latency.measure_cells(
        paths, USED, [[DDPM, ["t_s=0"]]], **TIMED, repeats=1, precision="bfloat16"
    )
    assert {r.dtype for r in records} == {"bfloat16"}


def test_only_a_methods_own_checkpoints_are_loaded_for_its_load_time(paths, monkeypatch):
    asked = []

    def counted(*arguments, **roles):
        asked.append(sorted(set(roles) - {"device", "precision", "compiled"}))
        return Models(*arguments, **roles)

    monkeypatch.setattr(latency, "Models", counted)
    grid = [[DDPM, ["t_s=0", "t_s=400", "theta=0.4"]]]
    records = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    assert asked[0] == ["full", "heads", "quantiles", "shallow"]
    own = [["full"], ["full", "heads"], ["full", "shallow"]]
    assert sorted(asked[1:]) == sorted(2 * own)  # two rounds
    loads = [r for r in records if r.metric == "load_seconds"]
    assert all(0 < r.interval[0] <= r.value <= r.interval[1] for r in loads)
    assert {r.method for r in loads} == {"full", "duodiff", "adadiff", *MECHANISMS}


def test_a_gpus_energy_is_read_where_there_is_a_meter_and_recorded_an_image(paths, monkeypatch):
    joules = iter(range(0, 100, 8))
    monkeypatch.setattr(latency, "energy_meter", lambda device: lambda: next(joules))
    records = latency.measure_cells(paths, USED, [[DDPM, ["t_s=0"]]], **TIMED, repeats=1)
    (record,) = [r for r in records if r.metric == "joules_per_image"]
    assert (record.value, record.unit, record.n) == (2.0, "J", 4)  # 8 J for 4 images


def test_there_is_no_energy_to_read_without_a_gpu_or_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter("cpu") is None
    assert energy_meter("cuda") is None


@pytest.mark.parametrize("counts", [True, False])
def test_energy_is_that_of_the_gpu_behind_the_torch_device(monkeypatch, counts):
    class NVMLError(Exception):
        pass

    def total(handle):
        if not counts:  # as a GPU before Volta
            raise NVMLError
        return {"of GPU-1-2": 2500}[handle]

    library = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID="of {}".format,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    properties = SimpleNamespace(uuid="1-2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    meter = energy_meter("cuda")
    assert (meter() if counts else meter) == (2.5 if counts else None)


@pytest.fixture(scope="module")
def needs(paths):
    """Records of two samplers' settings, and the models they are of."""
    ddim = {"name": "ddim", "steps": 6, "eta": 0}
    grid = [[DDPM, ["t_s=0", "t_s=400", "t_s=1000", "theta=q0.5"]], [ddim, ["t_s=0", "t_s=400"]]]
    found = latency.measure_cells(paths, USED, grid, **TIMED, repeats=2)
    return [r for r in found if r.sampler], loaded(paths)


def values_of(metric: str, records) -> dict:
    return {(r.sampler, r.method): r.value for r in records if r.metric == metric}


def test_a_trajectory_costs_the_calls_that_each_image_made_by_the_closed_form(needs):
    records, models = needs
    defaults = {"mlp_ratio": 4, "qkv_bias": False, "mlp_time_embed": False, "conv": True}
    full, shallow = (network(NET | defaults | {"depth": depth}) for depth in (5, 3))
    cell = build_cell(models, DDPM, Setting.parse("theta=q0.5"))
    exits = sample_batch(models, cell, 0, 4, 0)[2]
    assert exits.min() < exits.max()
    expected = {
        ("ddpm", "full"): 10 * full.forward,
        ("ddpm", "duodiff"): 4 * shallow.forward + 6 * full.forward,
        ("ddpm", "shallow"): 10 * shallow.forward,
        ("ddpm", "adadiff"): sum(full.exiting(e) for e in exits.flatten().tolist()) / 4,
        ("ddpm", "adadiff_all_heads"): 10 * full.all_heads,
        ("ddpm", "adadiff_none_exit"): 10 * full.exiting(5),
        ("ddim", "full"): 6 * full.forward,
        ("ddim", "duodiff"): 2 * shallow.forward + 4 * full.forward,  # 999 and 799
    }
    trajectories = values_of("gflops_per_trajectory", records)
    assert trajectories == pytest.approx({k: v / 1e9 for k, v in expected.items()}, rel=1e-9)
    calls = values_of("mean_gflops_per_call", records)
    steps = {"ddpm": 10, "ddim": 6}
    assert calls == pytest.approx({k: v / steps[k[0]] for k, v in trajectories.items()}, rel=1e-9)


def test_duodiff_holds_both_networks_and_adadiff_its_heads(needs):
    records, models = needs
    full, shallow = (
        sum(p.numel() for p in model.parameters()) for model in (models.full, models.shallow)
    )
    heads = sum(p.numel() for p in models.adadiff.heads_parameters())
    found = values_of("resident_parameters", records)
    assert found["ddpm", "full"] == full
    assert found["ddpm", "shallow"] == shallow
    assert found["ddpm", "duodiff"] == found["ddim", "duodiff"] == full + shallow
    assert found["ddpm", "adadiff"] == full + heads


def test_two_networks_take_the_memory_of_the_second_beside_that_of_the_full_one(needs):
    records, models = needs
    second = sum(t.nbytes for t in [*models.shallow.parameters(), *models.shallow.buffers()])
    found = values_of("peak_memory_mb", records)
    assert found["ddpm", "duodiff"] - found["ddpm", "full"] == pytest.approx(second / 1e6)
    weights = 4e-6 * values_of("resident_parameters", records)["ddpm", "full"]
    tokens = 4e-6 * 4 * 6 * NET["embed_dim"]  # of a batch of 4 images, float32
    assert found["ddpm", "full"] > weights + 3 * tokens  # with its two skips, at the least


def test_held_memory_is_that_of_tensors_made_and_not_yet_freed():
    there = torch.zeros(5000)

    def run():
        a = torch.zeros(1000)
        view, c = a[:10], torch.ones(10)
        del a
        there.add_(1)
        d = torch.ones(500)  # the peak: the view keeps all of a
        del d, view, c
        torch.ones(1200)

    assert peak_bytes(run, "cpu") == 4 * (1000 + 10 + 500)


def test_compiled_networks_are_timed_as_they_sample_and_their_operations_as_they_are(
    paths, monkeypatch
):
    compiled = []

    def compile_forward(net, device, precision):
        compiled.append(net)
        forward, net.forward = net.forward, lambda *given: forward(*given)
        net.calls = 0
        net.register_forward_pre_hook(lambda net, given: setattr(net, "calls", net.calls + 1))

    monkeypatch.setattr(models, "compile_forward", compile_forward)
    grid = [[DDPM, ["t_s=0", "t_s=400", "theta=0.4"]]]
    eager, other = (
        latency.measure_cells(paths, USED, grid, **TIMED, repeats=1, compiled=wanted)
        for wanted in (False, True)
    )
    assert [net.depth for net in compiled] == [5, 3]
    assert min(net.calls for net in compiled) > 0
    clocked = {(r.method, r.compiled) for r in other if r.metric == "speedup"}
    early = ("adadiff", "adadiff_all_heads", "adadiff_none_exit")
    assert clocked == {("full", True), ("duodiff", True), *((name, False) for name in early)}
    assert not any(r.compiled for r in eager)
    counted = [
        {(r.method, r.metric): r.value for r in found if "gflops" in r.metric}
        for found in (eager, other)
    ]
    assert counted[0] == counted[1]
