# The validated configuration, wildcard constraints, and the helper functions of all rules.
import sys
from pathlib import Path

sys.path.insert(0, str(ROOT))

from duodiff.running import job
from duodiff.running.receipts import receipt_of
from duodiff.settings import PATTERN, Setting
from duodiff.spaces import WEIGHTS, images_to_extrapolate, space, weights_path
from duodiff.study import config as configuration
from duodiff.study.grid import (
    backbone_architecture,
    backbones,
    budgeted,
    choosable,
    exits_early,
    further_timesteps,
    grid_points,
    grid_settings,
    grids,
    network_keywords,
    owner,
    roles,
    sampler_options,
    samplers,
    sampling_seed,
    schedules,
    scored_samplers,
    selected,
    setting_roles,
    step_grids,
    training_keywords,
)
from duodiff.study.scale import scale


def count_images(name, entry, data):
    """The contents of a dataset of own images: those that fetch_dataset counted, if it has, else counted now.

    Whoever adds images removes the receipt of fetch_dataset (refuse_changes_outside says so), but not its output. Jobs
    on other machines take the output as it is.
    """
    from duodiff.data import families

    fetched = Path("results/data", name, "fetched.json")
    known = receipt_of(fetched).exists() or not workflow.is_main_process
    found = families.fetched_contents(entry, fetched) if known else None
    return found or families.contents(entry, data)


try:
    for path in workflow.configfiles if MAIN else []:
        configuration.refuse_wrong_keys(Path(path))
    config = configuration.complete(config, count_images)
except configuration.ConfigError as error:
    raise WorkflowError(error)

# Snakemake says that a folder is locked, but not which command unlocks it. A run that makes its report holds the lock
# itself, and needs no such line.
if MAIN and workflow.is_main_process and any(Path(".snakemake/locks").glob("*.lock")):
    if not any(a.startswith(("--unlock", "--report")) for a in sys.argv):
        print(
            "This folder is locked, by a run at work or by one that was killed. If none is at work:"
            " snakemake --unlock",
            file=sys.stderr,
        )

EXPERIMENTS, DATASETS = config["experiments"], config["datasets"]
SELECTED = {name: EXPERIMENTS[name] for name in selected(config)}
DATA = Path(config["data"])


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    dataset="|".join(DATASETS),
    train_seed=r"\d+",
    seed=r"\d+",
    backbone="|".join(sorted({b for e in EXPERIMENTS.values() for b in backbones(e)})),
    metric="fid|fd_[a-z0-9_]+",
    reference=r"all|\d+",
    extractor="|".join(WEIGHTS),
    shard=r"\d+",
    shards=r"\d+",
    sampler=rf"(?:{'|'.join(samplers())})(?:/steps=\d+)?",
    method="duodiff|adadiff|schedule",
    setting=PATTERN,


PACKED = "results/data/{dataset}"
STUDY = "results/{experiment}/train{train_seed}"
LOG = "logs/{experiment}/train{train_seed}"
BENCHMARK = "benchmarks/{experiment}/train{train_seed}"
CELL = "{sampler}/{method}/{setting}/seed{seed}"
ARRAYS = ("images", "labels", "blocks_run")  # of a store of samples
NEVER = "(?!)"  # matches nothing
AUTOENCODER_WEIGHTS = "diffusion_pytorch_model.safetensors"  # as diffusers names them
# The cores of the run. A dry run, a report and a run on a cluster name none; they use the configuration's threads. On a
# node of a cluster, Snakemake names all cores of the machine, but the job has only the cores that it asked for.
NAMED_CORES = None if workflow.remote_exec else workflow.resource_settings.cores
ALL_CORES = NAMED_CORES or config["threads"]
GPU = int(config["device"] == "cuda")
TRAINING_GPUS = GPU * config["gpus"]
# What the site gives every job that does not say otherwise (--default-resources), by name.
SITE = workflow.resource_settings.default_resources or {}


def minutes(limit):
    """The time limit of a rule's job: `limit`, or the `runtime` of --default-resources if that is shorter."""
    found = SITE.get("runtime")
    most = getattr(found, "raw", found)
    if most is not None and not isinstance(most, int):
        raise WorkflowError(
            f"runtime of default-resources: found {most!r}; accepted: minutes, or a time such as 4h"
        )
    return min(limit, most or limit)


def gpus(count):
    """The GPUs that a job asks for by number: none where a `gres` of --default-resources names them."""
    return 0 if "gres" in SITE else count


def experiment(wc):
    """The configuration of a job's experiment."""
    return EXPERIMENTS[wc.experiment]


def dataset_name(wc):
    """The name of a job's dataset: of its wildcard, or of its experiment."""
    return wc.dataset if "dataset" in wc.keys() else experiment(wc)["dataset"]


def dataset(wc):
    """The configuration of a job's dataset."""
    return DATASETS[dataset_name(wc)]


def conventions(wc, *keys):
    """These conventions of the job's experiment (class_order is its dataset's)."""
    chosen = experiment(wc)
    conditional = chosen["backbone"]["num_classes"] > 0
    order = dataset(wc).get("class_order") if conditional else None
    return {key: order if key == "class_order" else chosen[key] for key in keys}


def study_options(wc):
    """The options that scripts about a whole study share."""
    chosen = experiment(wc)
    return {
        "experiment": wc.experiment,
        "protocol": chosen["protocol"],
        "conventions": conventions(wc, "schedule", "time_input", "class_order"),
        "precision": chosen["sampling"]["precision"],
    }


def monitor(wc, name):
    """The folder in which a training can be watched."""
    return f"{LOG}/{name}".format(**wc)


def published_conventions(wc):
    """The conventions that published weights were trained with: as configured, but with class ids in synset order."""
    named = conventions(wc, "schedule", "time_input", "class_order")
    return named | {"class_order": named["class_order"] and "synset"}


def packed(wc):
    """Manifest of the packed images of a job's experiment."""
    return f"{PACKED}/manifest.json".format(dataset=dataset_name(wc))


def training_data(wc):
    """Manifest of the training data of a job's experiment: packed images, or their latents."""
    latents = "latents/" if "autoencoder" in dataset(wc) else ""
    return f"{PACKED}/{latents}manifest.json".format(dataset=dataset_name(wc))


def images(wc):
    """The configuration of a dataset's images, without its autoencoder, which packing does not use."""
    return {k: v for k, v in dataset(wc).items() if k != "autoencoder"}


def autoencoder_files(wc):
    """The files of a dataset's autoencoder, if there is one.

    A published autoencoder has the receipt of its weights. One that is trained here has its configuration and weights.
    """
    codec, folder = dataset(wc).get("autoencoder"), f"{PACKED}/autoencoder"
    if codec is None:
        return []
    trained = [f"{folder}/config.json", f"{folder}/{AUTOENCODER_WEIGHTS}"]
    return expand(
        trained if "train" in codec else f"{folder}.json", dataset=dataset_name(wc)
    )


def section(wc):
    """The section of a job's autoencoder. The number of shards is left out: it decides no latent.

    An autoencoder that is trained here has its path below the results.
    """
    named = {k: v for k, v in dataset(wc)["autoencoder"].items() if k != "shards"}
    if "train" in named:
        named["path"] = f"{PACKED}/autoencoder".format(dataset=dataset_name(wc))
    return named


def autoencoder(wc):
    """The option that names a job's autoencoder, if it has one."""
    return {"autoencoder": section(wc)} if "autoencoder" in dataset(wc) else {}


def autoencoder_folder(wc):
    """The folder of the path of a job's autoencoder; None where it has none."""
    if "autoencoder" not in dataset(wc):
        return None
    return "." if "train" in dataset(wc)["autoencoder"] else DATA


def latent_shards(wc):
    """The files of all encoded shards of a dataset, in their order: the descriptions and the moments."""
    shards = dataset(wc)["autoencoder"]["shards"]
    pattern = f"{PACKED}/latents/shards/{{shard}}-of-{shards}"
    paths = expand(pattern, dataset=wc.dataset, shard=range(shards))
    return {
        "shards": [f"{path}.json" for path in paths],
        "moments": [f"{path}.npy" for path in paths],
    }


def cells(in_shards):
    """A constraint of {experiment} in a cell's path: the path's sampler cuts its cells into shards, or does not.

    sample_images makes whole cells, gather_samples joins shards. With this constraint, each cell fits only one of these
    rules.
    """
    names = [
        rf"{name}(?=/train\d+/samples/{sampler}/)"
        for name, chosen in EXPERIMENTS.items()
        for sampler, grid in chosen["grid"].items()
        if (grid["shards"] > 1) == in_shards
    ]
    return "|".join(names) or NEVER


def without_shards_of_cells():
    """A constraint of {experiment}: no sampler of it cuts its cells into shards."""
    names = [
        name
        for name, chosen in EXPERIMENTS.items()
        if all(grid["shards"] == 1 for grid in chosen["grid"].values())
    ]
    return "|".join(names) or NEVER


def cells_of(wc):
    """The wildcards of each cell of a training."""
    return [
        Named(
            experiment=wc.experiment,
            train_seed=wc.train_seed,
            sampler=point.sampler,
            method=point.setting.folder,
            setting=str(point.setting),
            seed=str(point.seed),
        )
        for point in grid_points(experiment(wc), int(wc.train_seed))
    ]


def shared_options(work, jobs):
    """The options that decide the results of a work's `jobs` (their wildcards): those they share, and each one's own."""
    decided = [work.decisive(wc) for wc in jobs]
    shared = {
        key: value
        for key, value in decided[0].items()
        if all(key in one and one[key] == value for one in decided)
    }
    own = [{k: v for k, v in one.items() if k not in shared} for one in decided]
    return {"shared": shared, "cells": own}


def planned_files(rule, wc):
    """The inputs and the outputs of a rule's job."""
    outputs = [apply_wildcards(str(path), wc) for path in getattr(rules, rule).output]
    return [listed_inputs(rule, wc), outputs]


def cell_shards(wc):
    """The files of all shards of a cell, in their order: the manifests and the arrays."""
    shards = step_grids(experiment(wc))[wc.sampler]["shards"]
    folder = f"{STUDY}/samples/{CELL}/shards/{{shard}}-of-{{shards}}"
    folders = [folder.format(**wc, shard=i, shards=shards) for i in range(shards)]
    return {
        "shards": [f"{folder}/manifest.json" for folder in folders],
        "arrays": [f"{folder}/{name}.npy" for folder in folders for name in ARRAYS],
    }


def shard(wc):
    """The options that name a job's shard, if it makes one."""
    return {"shard": wc.shard, "shards": wc.shards} if "shard" in wc.keys() else {}


def compiled(wc):
    """The option that has a cell's backbones compiled, which takes no value; None without it. Early exit is not."""
    wanted = experiment(wc)["sampling"]["compiled"]
    return [] if wanted and not Setting.parse(wc.setting).exits_early else None


def latent_memory(wc):
    """Megabytes of memory for a job that loads its dataset's autoencoder, if there is one."""
    return 8000 if "autoencoder" in dataset(wc) else 2000


def model(wc, role):
    """Manifest of the checkpoint in `role`: trained in this experiment, trained in another one, or published."""
    name = owner(config, wc.experiment, role)
    if role == "full" and "pretrained" in EXPERIMENTS[name]:
        return f"results/{name}/pretrained/manifest.json"
    return f"results/{name}/train{wc.train_seed}/{role}/manifest.json"


def cell_models(wc):
    """The checkpoints that one grid cell needs, for a quantile the observed uncertainties, and for a budget its choice."""
    setting = Setting.parse(wc.setting)
    needed = models_in(wc, setting_roles(experiment(wc), setting))
    if setting.is_quantile:
        needed["quantiles"] = f"{STUDY}/profile/quantiles.json".format(**wc)
    return needed | chosen_schedules(wc, [setting])


def study_models(wc):
    """The checkpoints of a study. Heads only if a cell needs them."""
    return models_in(wc, roles(experiment(wc)))


def measured_models(wc):
    """The checkpoints of a study, the observed uncertainties, and for budgets their choice."""
    return (
        study_models(wc)
        | {"quantiles": f"{STUDY}/profile/quantiles.json".format(**wc)}
        | chosen_schedules(wc, all_settings(wc))
    )


KNOWN_MODELS = ("full", "shallow", "heads", "quantiles", "chosen")
FURTHER = "network_"  # before the name of a further network, as the name of an input


def models_in(wc, found):
    """The checkpoints in these roles, by the names of a job's inputs."""
    return {
        role if role in KNOWN_MODELS else FURTHER + role: model(wc, role)
        for role in found
    }


def chosen_schedules(wc, settings):
    """The file of the schedules that were chosen, if one of `settings` is chosen by a budget."""
    if not budgeted(experiment(wc), settings):
        return {}
    return {"chosen": f"{STUDY}/profile/chosen.json".format(**wc)}


def models_of(input):
    """The checkpoints among a job's named inputs, as options; those of further networks in one, by name."""
    found = {role: input[role] for role in KNOWN_MODELS if role in input.keys()}
    further = {
        name.removeprefix(FURTHER): str(input[name])
        for name in input.keys()
        if name.startswith(FURTHER)
    }
    return found | ({"others": further} if further else {})


def named_schedules(wc, settings):
    """The option that says what the named schedules among `settings` are, if there are any."""
    names = [setting.spelled for setting in settings if setting.is_schedule]
    found = schedules(experiment(wc), sorted({*names}))
    return {"schedules": found} if found else {}


def named_inputs(input):
    """A job's named inputs, as options by their names; what only has it run again aside."""
    return {name: input[name] for name in input.keys() if name != "accepted"}


def datasets_with_classifier(shipped):
    """A constraint of {dataset} in a classifier's path: the classifier is shipped, or trained here."""
    names = [
        rf"{chosen['dataset']}(?=/{chosen['metric']['name']}/)"
        for chosen in EXPERIMENTS.values()
        if space(chosen["metric"]["name"]).weights is None
        and ("classifier" not in chosen["metric"]) == shipped
    ]
    return "|".join(names) or NEVER


def classifier(wc):
    """The classifier's training settings for a dataset and metric, from the first experiment that has both."""
    return next(
        chosen["metric"]["classifier"]
        for chosen in EXPERIMENTS.values()
        if (chosen["dataset"], chosen["metric"]["name"]) == (wc.dataset, wc.metric)
    )


def feature_weights(dataset, metric):
    """The input of a job that computes features: the receipt of published weights, or the dataset's classifier."""
    if published := space(metric).weights:
        return {"receipt": f"results/data/extractors/{published}.json"}
    return {
        "classifier": f"{PACKED}/{metric}/classifier.safetensors".format(
            dataset=dataset
        )
    }


def feature_file(metric, input):
    """The file with the weights of a metric's feature space."""
    if published := space(metric).weights:
        return weights_path(published, DATA, config["extractors"])
    return input.classifier


def reference(wc):
    """The reference that a job's experiment is measured against, and the weights of the metric's feature space."""
    chosen = experiment(wc)
    metric = chosen["metric"]["name"]
    receipt = rules.compute_reference.output.receipt.format(
        dataset=chosen["dataset"],
        metric=metric,
        reference=chosen["metric"].get("reference", "all"),
    )
    return {"reference": receipt} | feature_weights(chosen["dataset"], metric)


def samples(wc, method=""):
    """Manifests of the sample stores of one study: of all cells, or of the cells of one method."""
    points = grid_points(experiment(wc), int(wc.train_seed))
    return [
        f"{STUDY.format(**wc)}/samples/{point.path}/manifest.json"
        for point in points
        if point.setting.folder.startswith(method)
    ]


def latency_grid(wc):
    """Every sampler with its settings."""
    chosen = experiment(wc)
    return [
        [sampler_options(chosen, name), list(map(str, grid_settings(grid)))]
        for name, grid in grids(chosen).items()
    ]


def without_noise():
    """A constraint of {experiment}: it samples with DDIM without noise."""
    names = [
        name
        for name, chosen in EXPERIMENTS.items()
        if not chosen["grid"].get("ddim", {"eta": 1})["eta"]
    ]
    return "|".join(names) or NEVER


def scored_profiles(wc):
    """What the schedules of a sampler without noise are chosen by, if a budget needs it."""
    if "ddim" not in scored_samplers(experiment(wc)):
        return {}
    return {"displacements": f"{STUDY}/profile/displacements.npz".format(**wc)}


def all_settings(wc):
    """The settings of all samplers."""
    chosen = experiment(wc)["grid"].values()
    return [setting for grid in chosen for setting in grid_settings(grid)]


def studies(pattern, where=lambda name, chosen: True):
    """`pattern` for every selected experiment that `where` accepts, and every training seed."""
    return [
        pattern.format(experiment=name, train_seed=seed)
        for name, chosen in SELECTED.items()
        if where(name, chosen)
        for seed in chosen["train_seeds"]
    ]


def extrapolates(name, chosen):
    """A condition for `studies`: the experiment has enough images to extrapolate its distance."""
    needed = images_to_extrapolate(chosen["metric"]["name"])
    return chosen["sampling"]["images"] >= needed


def trains(role):
    """A condition for `studies`: the experiment itself trains the model in `role`."""

    def condition(name, chosen):
        return (role in roles(chosen) and role not in chosen["reuse"]) and not (
            role == "full" and "pretrained" in chosen
        )

    return condition


def figure5_samples():
    """Sample stores of every selected experiment: first training seed, DDPM, first sampling seed."""
    manifests = []
    for name, chosen in SELECTED.items():
        train_seed = chosen["train_seeds"][0]
        folder = STUDY.format(experiment=name, train_seed=train_seed)
        first = sampling_seed(chosen["sampling"]["seed"], train_seed)
        manifests += [
            f"{folder}/samples/{point.path}/manifest.json"
            for point in grid_points(chosen, train_seed)
            if point.sampler == "ddpm" and point.seed == first
        ]
    return manifests


def first_samples():
    """Sample stores for the page: first training and sampling seed, all steps and fewer, of DDPM or the first sampler."""
    manifests = []
    for name, chosen in SELECTED.items():
        train_seed = chosen["train_seeds"][0]
        folder = STUDY.format(experiment=name, train_seed=train_seed)
        first = sampling_seed(chosen["sampling"]["seed"], train_seed)
        sampler = next(iter(grids(chosen)))
        manifests += [
            f"{folder}/samples/{point.path}/manifest.json"
            for point in grid_points(chosen, train_seed)
            if point.sampler.split("/")[0] == sampler and point.seed == first
        ]
    return manifests


def shipped_study():
    """The folder of the shipped study as a file of this workflow, if there is one."""
    there = any((ROOT / "report/study").glob("*/study.json"))
    return {"study": "report/study"} if there else {}


def described(training=False):
    """What scripts are told of the selected experiments; with `training`, of how each is trained, too."""
    keys = ("title", "paper_dataset", "dataset", "schedule")
    return {
        name: {key: chosen[key] for key in keys}
        | {"scale": scale(chosen)}
        | ({"training": training_keywords(chosen)} if training else {})
        for name, chosen in SELECTED.items()
    }


def without_shards(value):
    """A configuration without the numbers of shards, which decide no result."""
    if not isinstance(value, dict):
        return value
    return {k: without_shards(v) for k, v in value.items() if k != "shards"}
