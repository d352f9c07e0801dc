"""The cost of a configuration before it is run: floating-point operations, jobs, disk, and hours at measured rates.

Operations are counted as `duodiff.metrics.flops` counts them (a multiply-add is two), in closed form. A backward pass
costs two forward passes. An AdaDiff cell exits at the mean exit layer of the paper's Table 2, or at
the full depth if Table 2 does not have the cell. A schedule that is yet to be chosen costs its whole budget.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from duodiff.data.families import contents
from duodiff.metrics.grams import TRAJECTORIES
from duodiff.metrics.rounds import TURNS, turn_steps
from duodiff.operations import Network, network
from duodiff.paper import DATASETS
from duodiff.protocol import PROTOCOLS
from duodiff.running.files import read_json
from duodiff.schedules import shallow_calls, visited
from duodiff.settings import FULL, Setting
from duodiff.spaces import space
from duodiff.study import config as configuration
from duodiff.study.families import image_shape, packed_images, reduction
from duodiff.study.grid import (
    backbone_architecture,
    backbones,
    call_operations,
    choosable,
    further_timesteps,
    grid_points,
    grid_settings,
    has_heads,
    owner,
    roles,
    scored_samplers,
    selected,
    step_grids,
)

_ROOT = Path(__file__).parents[2]
_TABLE_2, _PAPER = _ROOT / "report/paper/table2.csv", _ROOT / "config/paper.yaml"

ARCHITECTURES = {name: dataset.architecture for name, dataset in DATASETS.items()}
"""The paper's names of its networks, as bench records have them, by dataset."""

_FEATURES = {"inception": 11.42e9, "dinov2": 162.02e9, None: 0}
"""Operations for the features of one image, counted by torch; a small classifier's are left out, as is its training."""

_BYTES, _STATE = 4, 4 * 4
"""Bytes of a parameter in a checkpoint, and in an unfinished training's state (with its average and two moments)."""
_STATES = 3  # two are kept, one is being written


@dataclass(frozen=True)
class Work:
    """GPU jobs of one kind of an experiment or a dataset: how many, and together their operations and bytes on disk.

    `kind` is training, sampling or other. `peak` are further bytes on disk while one of the jobs runs. `compiled`
    networks run faster (`sampling.compiled`).
    """

    kind: str
    jobs: int
    operations: float
    bytes: float = 0
    peak: float = 0
    compiled: bool = False


def works(config: dict) -> dict[str, list[Work]]:
    """The GPU jobs that a complete configuration's selected experiments need, by experiment and then by dataset.

    An experiment that is not selected is there if a selected one reuses its models.
    """
    experiments, chosen = config["experiments"], selected(config)
    jobs: dict[str, list[Work]] = {}
    for name, experiment in experiments.items():
        own_roles = [
            role
            for role in roles(experiment)
            if any(
                role in roles(experiments[other]) and owner(config, other, role) == name
                for other in chosen
            )
        ]
        own = list(_trainings(experiment, own_roles))
        if name in chosen:
            dataset = config["datasets"][experiment["dataset"]]
            own += _measurements(experiment, dataset, config["device"])
        if own:
            seeds = len(experiment["train_seeds"])
            jobs[name] = [_times(work, seeds) for work in own]
    for name, dataset in config["datasets"].items():
        users = [experiments[e] for e in chosen if experiments[e]["dataset"] == name]
        if users:
            jobs[f"dataset {name}"] = list(_preparation(dataset, users))
    return jobs


def _times(work: Work, seeds: int) -> Work:
    return replace(
        work,
        jobs=work.jobs * seeds,
        operations=work.operations * seeds,
        bytes=work.bytes * seeds,
    )


def _trainings(experiment: dict, roles_trained: list[str]) -> Iterator[Work]:
    nets = {
        role: network(backbone_architecture(experiment, role))
        for role in roles_trained
        if role != "heads"
    }
    images = _images_of(experiment["backbone_training"])
    for role, net in nets.items():
        checkpoint = _BYTES * net.parameters
        if role == "full" and "pretrained" in experiment:
            yield Work("other", 0, 0, checkpoint)
        else:
            peak = _STATES * _STATE * net.parameters
            yield Work("training", 1, 3 * images * net.forward, checkpoint, peak)
    if "heads" in roles_trained:
        net = _with_heads(experiment)
        depth = len(net.blocks)
        parameters = depth * (net.output_head + _uncertainty_parameters(experiment))
        images = _images_of(experiment["heads_training"])
        frozen = net.forward - net.decode
        operations = images * (frozen + 3 * depth * (net.decode + net.uncertainty))
        peak = _STATES * _STATE * parameters
        yield Work("training", 1, operations, _BYTES * parameters, peak)


def _images_of(training: dict) -> int:
    return training["steps"] * training["batch"]


def _timestep_aware(experiment: dict) -> bool:
    return PROTOCOLS[experiment["protocol"]].timestep_aware_uncertainty


def _uncertainty_parameters(experiment: dict) -> int:
    return (2 if _timestep_aware(experiment) else 1) * experiment["backbone"]["embed_dim"] + 1


def _with_heads(experiment: dict) -> Network:
    """The full backbone, with the uncertainty heads of the experiment's protocol."""
    return network(backbone_architecture(experiment, "full"), _timestep_aware(experiment))


def _measurements(experiment: dict, dataset: dict, device: str) -> Iterator[Work]:
    """Profile, samples, their evaluation and the timing of one training seed."""
    full = _with_heads(experiment)
    every_layer = full.all_heads if has_heads(experiment) else full.forward
    others = [call_operations(experiment, role) for role in backbones(experiment) if role != "full"]
    t = experiment["profile"]["timesteps"] + len(further_timesteps(experiment))
    yield Work("other", 1, t * dataset["held_out"] * (every_layer + sum(others)))
    if "ddim" in scored_samplers(experiment):
        yield Work("other", 1, _displaced(experiment))

    sampling, latency = experiment["sampling"], experiment["latency"]
    points, decode = grid_points(experiment), _codec(dataset)[1]
    images = math.ceil(sampling["images"] / sampling["batch"]) * sampling["batch"]
    kept = sampling["images"] * (_image_bytes(dataset) + 8)
    for point in points:
        calls = _calls(experiment, point.sampler, point.setting)
        operations = images * (sum(calls) + decode)
        shards = step_grids(experiment)[point.sampler]["shards"]
        size = kept + sampling["images"] * len(calls)
        compiled = sampling["compiled"] and not point.setting.exits_early
        yield Work("sampling", shards, operations, size, compiled=compiled)

    timed = sum(_timed(experiment, sampler, device) for sampler in experiment["grid"])
    decoded = min(dataset["autoencoder"]["batch"], latency["batch"]) if decode else 0
    yield Work("other", 1, latency["batch"] * timed + latency["repeats"] * decoded * decode)

    features = _FEATURES[space(experiment["metric"]["name"]).weights]
    yield Work("other", 1, len(points) * sampling["images"] * features)


def _displaced(experiment: dict) -> float:
    """Operations of the displacements under DDIM: at each step all trajectories that were changed before go on."""
    names = [*choosable(experiment), "shallow"]
    full, *changes = (call_operations(experiment, name) for name in ("full", *names))
    calls = len(_calls(experiment, "ddim", FULL))
    going_on = calls + len(names) * calls * (calls - 1) / 2
    return TRAJECTORIES * (going_on * full + calls * sum(changes))


def _timed(experiment: dict, sampler: str, device: str) -> float:
    """Operations for each image of the timing's batch under one sampler, in the least number of rounds.

    In a round a cell and the full backbone run a few steps each. AdaDiff's whole trajectories are sampled first.
    """
    grid, rounds = experiment["grid"][sampler], experiment["latency"]["repeats"]
    full = _calls(experiment, sampler, FULL)
    cells = [_calls(experiment, sampler, s) for s in grid_settings(grid) if s != FULL] or [full]
    exiting = sum(sum(_calls(experiment, sampler, s)) for s in grid_settings(grid) if s.exits_early)
    if grid["theta"]:
        heads = _with_heads(experiment)
        cells += [
            [cost] * len(full) for cost in (heads.all_heads, heads.exiting(len(heads.blocks)))
        ]
    schedules = [experiment["schedules"].get(name) for name in grid["schedules"]]
    alone = {i["network"] for schedule in schedules if schedule for i in schedule["intervals"]}
    cells += [
        [call_operations(experiment, name)] * len(full)
        for name in sorted(alone - {"full", "shallow"})
    ]
    part = min(1, TURNS * turn_steps(device) / len(full))
    return rounds * part * sum(sum(calls) + sum(full) for calls in cells) + exiting


def _calls(experiment: dict, folder: str, setting: Setting) -> list[float]:
    """Operations of each network call that an image of a cell takes; `folder` is the sampler's (`step_grids`)."""
    protocol, sampler = PROTOCOLS[experiment["protocol"]], folder.partition("/")[0]
    schedule = experiment["schedules"].get(setting.spelled, {}) if setting.is_schedule else {}
    t = visited(schedule.get("timesteps", step_grids(experiment)[folder]["steps"]))
    if sampler == "ddim" and not protocol.ddim_final_step:
        t = t[:-1]
    full = _with_heads(experiment)
    if setting.exits_early:
        layer = _mean_exit(experiment["paper_dataset"], setting) if sampler == "ddpm" else None
        return [full.exiting(len(full.blocks) if layer is None else layer)] * len(t)
    guided = 2 if experiment["sampling"]["guidance"] else 1
    if setting.is_schedule and not schedule:
        budget = experiment["budgets"][setting.spelled]["operations"]
        return [guided * budget * full.forward] * len(t)
    if schedule:
        names = _networks_at(schedule, t)
    else:
        late = sampler == "ddim" and protocol.ddim_switch_one_call_late
        switched = shallow_calls(t, setting.t_s, late)
        names = ["shallow"] * switched + ["full"] * (len(t) - switched)
    cost_of = {name: guided * call_operations(experiment, name) for name in set(names)}
    return [cost_of[name] for name in names]


def _networks_at(schedule: dict, t: np.ndarray) -> list[str]:
    """The network that a configured schedule runs at each timestep of t [K]."""
    found = []
    for one in t:
        found += [i["network"] for i in schedule["intervals"] if i["t"][0] <= one <= i["t"][1]]
    return found


def _mean_exit(dataset: str | None, setting: Setting) -> float | None:
    """The mean exit layer at a threshold in the paper's Table 2, None where it does not have the threshold."""
    if setting.is_quantile:
        return None
    rows = pd.read_csv(_TABLE_2).query("dataset == @dataset and parameter == 'theta'")
    layers = rows.loc[rows["value"] == setting.number, "mean_exit_layer"]
    return None if layers.empty else float(layers.iloc[0])


def _preparation(dataset: dict, users: list[dict]) -> Iterator[Work]:
    """The classifiers, the references and the latents of a dataset that the experiments `users` share."""
    n = packed_images(dataset) or 0
    references = {(e["metric"]["name"], e["metric"].get("reference", "all")) for e in users}
    for name in sorted({name for name, _ in references}):
        jobs = sum(name == other for other, _ in references)
        yield Work("other", jobs, n * _FEATURES[space(name).weights])
    classifiers = {e["metric"]["name"] for e in users if "classifier" in e["metric"]}
    yield Work("training", len(classifiers), 0)
    yield Work("other", 0, 0, n * _image_bytes(dataset))
    if "autoencoder" not in dataset:
        return
    codec, (encode, decode) = dataset["autoencoder"], _codec(dataset)
    if "train" in codec:
        yield Work("training", 1, 3 * _images_of(codec["train"]) * (encode + decode))
    faces = 2 if codec["flips"] else 1
    _, size = _shape(dataset)
    cells = (size // reduction(codec)) ** 2 * codec["architecture"]["latent_channels"]
    latents = n * faces * 2 * cells * 2  # mean and log-variance, float16
    yield Work("other", codec["shards"], n * faces * encode, latents, latents)


def _shape(dataset: dict) -> tuple[int, int]:
    """Channels and width of the packed images."""
    channels, size = image_shape(dataset)
    assert size is not None  # a complete configuration has it
    return channels, size


def _image_bytes(dataset: dict) -> int:
    channels, size = _shape(dataset)
    return channels * size**2


@cache
def _codec_operations(architecture_json: str, channels: int, size: int) -> tuple[float, float]:
    import torch  # for datasets with an autoencoder alone: it takes seconds
    from diffusers import AutoencoderKL
    from torch.utils.flop_counter import FlopCounterMode

    from duodiff.autoencoder import network_config

    architecture = json.loads(architecture_json)
    with torch.device("meta"), torch.inference_mode():
        net = AutoencoderKL.from_config(network_config(architecture, channels))
        latent = size // reduction({"architecture": architecture})
        calls = (
            (net.encode, torch.zeros(1, channels, size, size)),
            (net.decode, torch.zeros(1, architecture["latent_channels"], latent, latent)),
        )
        counted = []
        for call, x in calls:
            with FlopCounterMode(display=False) as counter:
                call(x)
            counted.append(float(counter.get_total_flops()))
    return counted[0], counted[1]


def _codec(dataset: dict) -> tuple[float, float]:
    """Operations to encode and to decode one image; 0 without an autoencoder."""
    if "autoencoder" not in dataset:
        return 0.0, 0.0
    return _codec_operations(json.dumps(dataset["autoencoder"]["architecture"]), *_shape(dataset))


@dataclass(frozen=True)
class Rates:
    """The speed of a device: operations a second by architecture, and seconds to start a job.

    `compiled_flops_per_s` is that of compiled networks in sampling, where it is known.
    """

    device: str
    dtype: str
    sampling_flops_per_s: dict[str, float]
    training_flops_per_s: dict[str, float]
    startup_s: float
    compiled_flops_per_s: dict[str, float] = field(default_factory=dict)

    def hours(self, work: Work, architecture: str) -> float:
        """Hours that the work's operations take, start-up not included."""
        rates = self.training_flops_per_s if work.kind == "training" else self.sampling_flops_per_s
        if work.compiled:
            rates = rates | self.compiled_flops_per_s
        return work.operations / rates[architecture] / 3600

    def startup_hours(self, work: Work) -> float:
        """Hours that its jobs need to start."""
        return work.jobs * self.startup_s / 3600


def read_rates(bench: Path) -> Rates:
    """The rates in a record of `make bench`. Raises ValueError if it has none, or not for all architectures."""
    measured = read_json(bench).get("rates")
    if measured is None:
        raise ValueError(
            f"{bench}: it has no rates; make bench writes them on a machine with a GPU"
        )
    keys = [key.name for key in fields(Rates) if key.default_factory is MISSING]
    if missing := set(keys) - set(measured):
        raise ValueError(f"{bench}: rates: missing {', '.join(sorted(missing))}")
    rates = Rates(**{key: measured[key] for key in keys})
    for key in ("sampling_flops_per_s", "training_flops_per_s"):
        if missing := set(ARCHITECTURES.values()) - set(getattr(rates, key)):
            raise ValueError(f"{bench}: rates.{key}: missing {', '.join(sorted(missing))}")
    return rates


PEAK_TFLOPS = {
    "A10": 125,
    "A100": 312,
    "A6000": 155,
    "H100": 989,
    "H200": 989,
    "L4": 121,
    "L40S": 362,
    "RTX 3090": 71,
    "RTX 4090": 165,
}
"""TFLOP/s of products in bfloat16, without sparsity, that the makers' data sheets give to GPUs."""

MEASURED_GPU = "H100"
_MEASURED = _ROOT / f"report/rates/{MEASURED_GPU}.json"
_KINDS = ("sampling", "compiled sampling", "training")
_STARTUP_S = 20.0  # of a job on a cluster (docs/cluster.md)


def measured_rates() -> dict[str, dict[str, float]]:
    """Operations a second that the networks reached on the measured GPU, by kind of work and architecture."""
    found, rates = read_json(_MEASURED), {}
    for kind in _KINDS:
        passes = 3 if kind == "training" else 1
        rates[kind] = {
            name: passes * found["batch"] * network(_papers()[name]).forward / (ms / 1e3)
            for name, ms in found["milliseconds"][kind].items()
        }
    return rates


def all_rates() -> dict[str, dict[str, float]]:
    """The measured rates, with estimates where nothing was measured.

    S/4 is set as fast as S/2, training L/2 in the ratio of S/2, and M/4 midway between S/2 and L/2.
    """
    rates = measured_rates()
    eager = rates["sampling"]
    filled = {}
    for kind, known in rates.items():
        small = known["S/2"]
        large = known.get("L/2", small * eager["L/2"] / eager["S/2"])
        filled[kind] = {"S/2": small, "S/4": small, "M/4": (small + large) / 2, "L/2": large}
        filled[kind] |= known
    return filled


def rates_of_gpu(gpu: str) -> Rates:
    """Rates of a GPU of `PEAK_TFLOPS`: the measured ones, or for another GPU these in the ratio of the peaks.

    Raises ValueError for another name.
    """
    peaks = {name.lower(): (name, peak) for name, peak in PEAK_TFLOPS.items()}
    if gpu.lower() not in peaks:
        raise ValueError(
            f"gpu: found {gpu!r}; accepted: {', '.join(PEAK_TFLOPS)}. For another: make bench there, then --bench"
        )
    name, peak = peaks[gpu.lower()]
    share = peak / PEAK_TFLOPS[MEASURED_GPU]
    sampling, compiled, training = (
        {net: share * rate for net, rate in all_rates()[kind].items()} for kind in _KINDS
    )
    return Rates(name, "bfloat16", sampling, training, _STARTUP_S, compiled_flops_per_s=compiled)


def _chosen_rates(bench: Path | None, gpu: str | None) -> Rates | None:
    if bench and gpu:
        raise ValueError("accepted: one of --bench and --gpu")
    return read_rates(bench) if bench else rates_of_gpu(gpu) if gpu else None


def _papers() -> dict[str, dict]:
    """The paper's architectures by name."""
    return {
        ARCHITECTURES[name]: experiment["backbone"]
        for name, experiment in configuration.published_experiments(_PAPER).items()
    }


def nearest(architecture: dict) -> tuple[str, bool]:
    """The paper's architecture whose operations are nearest to those of a U-ViT, and whether it is that one."""
    forward, papers = network(architecture).forward, _papers()
    name = min(papers, key=lambda n: abs(math.log(network(papers[n]).forward / forward)))
    return name, papers[name] == architecture


def describe(path: Path, bench: Path | None, gpu: str | None = None) -> str:
    """The cost of the configuration file `path`: a Markdown table and notes.

    Hours are at the rates in `bench`, or at those estimated for the GPU of the name `gpu`. Raises ValueError for both.
    """
    config = configuration.read(path, lambda _, dataset, data: contents(dataset, data))
    rates = _chosen_rates(bench, gpu)
    of_gpus = "GPU " if config["device"] == "cuda" or gpu else ""
    works_of = works(config)
    unit = _unit(max(sum(w.operations for w in jobs) for jobs in works_of.values()))
    rows, notes = [], []
    for name, jobs in works_of.items():
        experiment = _of(config, name)
        architecture, exact = nearest(experiment["backbone"])
        if rates and not exact and name in config["experiments"]:
            notes.append(f"{name}: at the rates of {architecture}, the nearest in operations.")
        rows.append(_row(name, jobs, rates, architecture, unit=unit))
    table = pd.DataFrame(rows)
    unknown = [n for n in config["datasets"] if packed_images(config["datasets"][n]) is None]
    notes += [
        f"dataset {n}: its images are left out, only its files tell how many there are."
        for n in unknown
        if f"dataset {n}" in set(table["of"])
    ]
    total = table.drop(columns=["of", "peak GB", "start-up %"], errors="ignore").sum()
    total["peak GB"] = table["peak GB"].max()
    if rates:
        startup = (table["hours"] * table["start-up %"]).sum()
        total["start-up %"] = startup / total["hours"]
        notes.append(
            f"Hours on one {rates.device} ({rates.dtype}), {rates.startup_s:g} s of start-up a job."
        )
        spared = sum(_spared(config, name, jobs) for name, jobs in works_of.items())
        notes.append(
            "All cells of a training in one job (the rule sample_cells, as make reproduce-gpu has it) spare"
            f" {spared} starts, {spared * rates.startup_s / 3600:.3g} of these hours."
        )
    else:
        notes.append(
            "Hours: --gpu A100 for an estimate, or make bench on the device, then --bench results/bench/bench.json."
        )
    if gpu:
        notes += _of_estimate(config, gpu)
    table.loc[len(table)] = {"of": "all", **total}
    named = {"jobs": f"{of_gpus}jobs", "hours": f"{of_gpus}hours"}
    return "\n".join([str(path), _markdown(table[list(rows[0])].rename(columns=named)), *notes])


def _spared(config: dict, name: str, jobs: list[Work]) -> int:
    """The jobs that sample for the experiment `name`, but for one a training; none for a dataset."""
    sampling = sum(work.jobs for work in jobs if work.kind == "sampling")
    return sampling and sampling - len(config["experiments"][name]["train_seeds"])


def _precisions(experiment: dict) -> list[str]:
    return [experiment[key]["precision"] for key in ("sampling", "backbone_training")]


_UNITS = {"E": 1e18, "P": 1e15, "T": 1e12}


def _unit(operations: float) -> str:
    """The unit in which the largest row of a table is readable: 0.1 of it or more."""
    return next((unit for unit, size in _UNITS.items() if operations >= size / 10), "T")


def _of_estimate(config: dict, gpu: str) -> list[str]:
    """What is said of hours that nobody measured, or that are of rates that somebody did."""
    notes = [_of_rates()]
    if gpu.lower() != MEASURED_GPU.lower():
        notes.append(
            f"For the {gpu} nothing is measured: these rates are multiplied by the ratio of the data sheets' peaks."
            " Half or twice as many hours are possible. make bench on the GPU measures its rates."
        )
    chosen = [config["experiments"][name] for name in selected(config)]
    if any("float32" in _precisions(experiment) for experiment in chosen):
        notes.append(
            "What is configured in float32 takes 5 to 8 times as long (H100): sampling.precision,"
            " backbone_training.precision."
        )
    return notes


def _of_rates() -> str:
    """What the rates of the measured GPU are of, and which of them are estimates."""
    found, measured, rates = read_json(_MEASURED), measured_rates(), all_rates()
    known = "; ".join(f"{kind} {', '.join(sorted(measured[kind]))}" for kind in _KINDS)
    missing = "; ".join(
        f"{kind} {', '.join(sorted(rates[kind].keys() - measured[kind]))}" for kind in _KINDS
    )
    made = f"{found['date']}, commit {found['commit']}, {found['dtype']}, batch {found['batch']}"
    return f"Rates measured on one {found['device']} ({made}): {known}. Not measured, but set between these: {missing}."


def _of(config: dict, name: str) -> dict:
    """The experiment of a row: the row's own, or for a dataset the first selected experiment on it."""
    experiments, dataset = config["experiments"], name.removeprefix("dataset ")
    if dataset == name:
        return experiments[name]
    return next(experiments[e] for e in selected(config) if experiments[e]["dataset"] == dataset)


def _row(name: str, jobs: list[Work], rates: Rates | None, architecture: str, *, unit: str) -> dict:
    row: dict[str, str | float] = {"of": name, "jobs": sum(work.jobs for work in jobs)}
    for kind in ("training", "sampling", "other"):
        operations = sum(w.operations for w in jobs if w.kind == kind)
        row[f"{kind} {unit}FLOP"] = operations / _UNITS[unit]
    row["disk GB"] = sum(work.bytes for work in jobs) / 1e9
    row["peak GB"] = max(work.peak for work in jobs) / 1e9
    if rates:
        startup = sum(map(rates.startup_hours, jobs))
        hours = startup + sum(rates.hours(work, architecture) for work in jobs)
        row |= {"hours": hours, "start-up %": 100 * startup / hours if hours else 0.0}
    return row


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return value
        return f"{value:.3g}" if value < 100 else f"{value:,.0f}"

    lines = [list(table), ["---", *["--:"] * (len(table.columns) - 1)]]
    lines += [[cell(v) for v in row] for row in table.astype(object).itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
