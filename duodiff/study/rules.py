"""Rules between keys of the configuration. A schema cannot express them (no torch)."""

import math
import unicodedata
from collections.abc import Iterator, Mapping

from duodiff.paper import PAPER_TITLES
from duodiff.protocol import PROTOCOLS
from duodiff.schedules import T, noise_schedule, one_step_eta_limit
from duodiff.settings import gap, misplaced
from duodiff.spaces import shipped_classifiers, space
from duodiff.study.decided import dataset_classes, network_shape, undecided
from duodiff.study.families import (
    FAMILIES,
    Contents,
    image_shape,
    is_share,
    most_held_out,
    reduction,
    training_images,
)
from duodiff.study.grid import (
    SEEDS_OF_A_TRAINING,
    backbones,
    call_operations,
    choosable,
    has_heads,
    selected,
)

# Precision and recall look at 3 neighbours of an image, the kernel distance at a quarter of the images.
_FEWEST_HELD_OUT = 16

# Endings of the names of records that are made from a distance.
_DERIVED = ("_spread", "_standard", "_matched", "_difference", "_infinity")

# Categories of characters that no title has: control characters, ends of lines and paragraphs, halves of characters.
_UNPRINTABLE = {"Cc", "Zl", "Zp", "Cs"}

# Names of an experiment's models and folders, and of what a model is loaded with: no further network's.
_NOT_NETWORKS = {
    "full",
    "shallow",
    "heads",
    "gallery",
    "profile",
    "quantiles",
    "records",
    "samples",
    "export",
}
_NOT_NETWORKS |= {"conventions", "protocol", "device", "precision", "compiled"}

# Folders of results/ that are no experiment's.
_RESERVED = {"data", "tables", "figures", "bench", "statistics", "run", "paper", "screenshots"}


def conflicts(config: dict, counted: Mapping[str, Contents]) -> Iterator[str]:
    """Every problem of a complete configuration that fits the schema: a line each, which begins with the key.

    `counted` are the contents of the datasets whose files were counted. A key that waits for others is not judged.
    """
    experiments, datasets = config["experiments"], config["datasets"]
    for name in _RESERVED & set(experiments):
        yield f"experiments.{name}: accepted: another name; results/{name} holds something else"
    if not selected(config):
        yield f"only: found {config['only']!r}; accepted: {', '.join(experiments)}"
    for name in selected(config):
        if name not in experiments:
            yield f"only: found {name!r}; accepted: {', '.join(experiments)}"
    gpus = config["gpus"]
    if gpus > 1 and config["device"] == "cpu":
        yield f"gpus: found {gpus}; accepted: 1 with device cpu"
    yield from _title_conflicts(experiments)
    for name, dataset in datasets.items():
        for problem in _dataset_conflicts(dataset, counted.get(name)):
            yield f"datasets.{name}.{problem}"
    for waiting in undecided(config):
        source = datasets.get(waiting.dataset, {}).get("source")
        if source and not FAMILIES[source].counted:
            yield f"{waiting.key}: found {waiting.value}; accepted with source {source}: a number of images"
    for name, experiment in experiments.items():
        if experiment["dataset"] not in datasets:
            found = f"found {experiment['dataset']!r}; accepted: {', '.join(datasets)}"
            yield f"experiments.{name}.dataset: {found}"
            continue
        dataset, contents = datasets[experiment["dataset"]], counted.get(experiment["dataset"])
        for problem in (
            *_backbone_conflicts(experiment),
            *_network_conflicts(experiment),
            *_schedule_conflicts(experiment),
            *_precision_conflicts(experiment),
            *_batch_conflicts(experiment, gpus),
            *_fit_conflicts(experiment, dataset, contents),
            *_grid_conflicts(experiment),
            *_metric_conflicts(experiment, dataset, contents),
            *_classifier_conflicts(experiment, name, experiments),
            *_reuse_conflicts(experiment, name, experiments),
        ):
            of_dataset = problem.startswith("datasets.")
            yield (
                f"{problem} (experiments.{name})" if of_dataset else f"experiments.{name}.{problem}"
            )


def _title_conflicts(experiments: dict) -> Iterator[str]:
    """Each row of a table has its own title. The titles of the paper's datasets count as well."""
    seen: dict[str, str] = {}
    for name, experiment in experiments.items():
        title, dataset = experiment["title"], experiment["paper_dataset"]
        if not title.strip() or any(unicodedata.category(c) in _UNPRINTABLE for c in title):
            yield f"experiments.{name}.title: found {title!r}; accepted: one line of printable characters"
        first = seen.setdefault(title, name)
        if first != name:
            yield f"experiments.{name}.title: found {title!r}; accepted: another than that of {first}"
        if title in PAPER_TITLES.values() and title != PAPER_TITLES.get(dataset):
            yield (
                f"experiments.{name}.title: found {title!r}; accepted: another, since the paper's dataset is"
                " called that, or its paper_dataset"
            )


def _dataset_conflicts(dataset: dict, found: Contents | None) -> Iterator[str]:
    source = dataset["source"]
    family = FAMILIES[source]
    needed, optional = family.keys, family.optional
    accepted = needed | optional | {"source", "held_out", "subset", "autoencoder"}
    for key in sorted(needed - set(dataset)):
        yield f"{key}: missing; source {source} needs {', '.join(sorted(needed))}"
    for key in sorted(set(dataset) - accepted):
        listed = ", ".join(sorted(accepted))
        yield f"{key}: not a key of source {source}; accepted: {listed}"
    for key in sorted(optional - set(dataset)):
        if optional & set(dataset):
            yield f"{key}: missing; {', '.join(sorted(optional))} belong together"
    yield from _count_conflicts(dataset, found)
    crops = family.crops
    if crops and dataset.get("crop", crops[0]) not in crops:
        yield f"crop: found {dataset['crop']!r}; accepted for {source}: {', '.join(crops)}"
    if "autoencoder" in dataset:
        for problem in _autoencoder_conflicts(dataset["autoencoder"], image_shape(dataset)[1]):
            yield f"autoencoder.{problem}"


def _count_conflicts(dataset: dict, found: Contents | None) -> Iterator[str]:
    """The dataset has as many images as are asked for, as far as is known."""
    most, left = most_held_out(dataset, found), training_images(dataset, found)
    if most is None or left is None:
        return
    subset = dataset.get("subset", 1)
    if dataset["held_out"] > most:
        yield f"held_out: found {dataset['held_out']}; accepted: up to {most} of source {dataset['source']}"
    elif subset > left:
        yield f"subset: found {subset}; accepted: up to the {left} images that are not held out"


def _autoencoder_conflicts(codec: dict, size: int | None) -> Iterator[str]:
    """The keys of an autoencoder fit each other and images of `size` pixels (None: only the files tell)."""
    origins = [key for key in ("path", "hub", "train") if key in codec]
    if len(origins) != 1:
        given = " and ".join(origins) or "none of them"
        yield f"path, hub, train: found {given}; accepted: exactly one"
    if "hub" in codec and "revision" not in codec:
        yield "revision: missing; a hub id needs the commit it is pinned to"
    if "revision" in codec and "hub" not in codec:
        yield f"revision: found {codec['revision']!r}; accepted: only with hub"
    for key in sorted({"scale", "sha256"} & set(codec)):
        if "train" in codec:
            yield f"{key}: found {codec[key]!r}; accepted: not with train, which determines it"
    architecture, reduced = codec["architecture"], reduction(codec)
    groups = architecture["norm_num_groups"]
    for channels in architecture["block_out_channels"]:
        if channels % groups:
            yield (
                f"architecture.norm_num_groups: found {groups};"
                f" it must divide block_out_channels {channels}"
            )
    if size is not None and size % reduced:
        yield (
            f"architecture.block_out_channels: found {len(architecture['block_out_channels'])} resolutions,"
            f" which reduce {reduced} times; accepted: a reduction that divides size {size}"
        )


def _backbone_conflicts(experiment: dict) -> Iterator[str]:
    net = experiment["backbone"]
    for divisor, whole in (("patch_size", "img_size"), ("num_heads", "embed_dim")):
        if net.get(whole, 0) % net[divisor]:
            yield f"backbone.{divisor}: found {net[divisor]}; it must divide {whole} {net[whole]}"
    for key, depth in (
        ("backbone.depth", net["depth"]),
        ("shallow_depth", experiment["shallow_depth"]),
    ):
        if depth % 2 == 0:
            yield f"{key}: found {depth}; accepted: an odd number of blocks"
    if experiment["shallow_depth"] >= net["depth"]:
        yield (
            f"shallow_depth: found {experiment['shallow_depth']};"
            f" accepted: fewer blocks than backbone.depth {net['depth']}"
        )
    classes = net.get("num_classes")
    if experiment["null_class"] and classes is not None and classes < 2:
        yield f"null_class: found true; backbone.num_classes {classes} leaves no class beside it"
    dropout, guidance = (
        experiment["backbone_training"]["label_dropout"],
        experiment["sampling"]["guidance"],
    )
    for key, value in (
        ("backbone_training.label_dropout", dropout),
        ("sampling.guidance", guidance),
    ):
        if value and not experiment["null_class"]:
            yield f"{key}: found {value}; accepted: 0 without a null class (null_class: true)"
    if guidance and has_heads(experiment):
        yield f"sampling.guidance: found {guidance}; accepted: 0 with early exit (a theta, or an exit of networks)"
    hidden = int(net["embed_dim"] * net["mlp_ratio"])
    if hidden < 1:
        yield f"backbone.mlp_ratio: found {net['mlp_ratio']}; it leaves no unit of embed_dim {net['embed_dim']}"
    if PROTOCOLS[experiment["protocol"]].labels_from_1 and classes == 1:
        yield f"backbone.num_classes: found 1; protocol {experiment['protocol']} never draws class 0"
    if "pretrained" in experiment and experiment["prediction"] != "noise":
        yield f"prediction: found {experiment['prediction']!r}; pretrained weights predict noise"


def _network_conflicts(experiment: dict) -> Iterator[str]:
    """Each further network is one of three kinds, and what it is made of is there."""
    networks, blocks = experiment["networks"], experiment["backbone"]["depth"]
    kinds = [{"depth"}, {"exit"}, {"network", "by", "weight"}]
    plain = {"full", "shallow"} | {n for n, network in networks.items() if "by" not in network}
    for name, network in networks.items():
        if name in _NOT_NETWORKS:
            yield f"networks.{name}: accepted: another name than {', '.join(sorted(_NOT_NETWORKS))}"
        if set(network) not in kinds:
            found = ", ".join(network) or "none"
            yield f"networks.{name}: found {found}; accepted: depth, or exit, or network, by and weight"
        if network.get("depth", 1) % 2 == 0:
            yield f"networks.{name}.depth: found {network['depth']}; accepted: an odd number of blocks"
        if network.get("exit", 0) >= blocks:
            yield f"networks.{name}.exit: found {network['exit']}; accepted: 0 to {blocks - 1}, a layer of full"
        if "by" in network and network["by"] == network.get("network"):
            yield f"networks.{name}.by: found {network['by']!r}; accepted: another one than network"
        for key in ("network", "by"):
            if network.get(key, "full") not in plain:
                listed = ", ".join(sorted(plain))
                yield f"networks.{name}.{key}: found {network[key]!r}; accepted: {listed}"
        if "by" in network and experiment["sampling"]["guidance"]:
            guidance = experiment["sampling"]["guidance"]
            yield f"sampling.guidance: found {guidance}; accepted: 0 with networks that are guided ({name})"


def _schedule_conflicts(experiment: dict) -> Iterator[str]:
    """Each schedule covers every t once, by networks that are there, and has a name of its own."""
    known = {"full", "shallow", *experiment["networks"]}
    for name in experiment["schedules"].keys() & experiment["budgets"].keys():
        yield f"budgets.{name}: accepted: another name; a schedule is called so"
    for name, schedule in experiment["schedules"].items():
        for one in schedule["intervals"]:
            if one["network"] not in known:
                found = f"found {one['network']!r}; accepted: {', '.join(sorted(known))}"
                yield f"schedules.{name}.intervals: {found}"
        if problem := gap((one["network"], *one["t"]) for one in schedule["intervals"]):
            yield f"schedules.{name}.intervals: {problem}"
        if problem := misplaced(schedule.get("timesteps", (T - 1, 0))):
            yield f"schedules.{name}.timesteps: {problem}"


def _precision_conflicts(experiment: dict) -> Iterator[str]:
    """Sampling and timing are in the precision of the protocol, if it has one."""
    found, protocol = experiment["sampling"]["precision"], PROTOCOLS[experiment["protocol"]]
    if protocol.sampling_precision not in (None, found):
        yield (
            f"sampling.precision: found {found}; accepted under protocol {protocol.name}:"
            f" {protocol.sampling_precision}, in which the released code sampled and timed"
        )


def _batch_conflicts(experiment: dict, gpus: int) -> Iterator[str]:
    """A training batch can be cut into equal parts: by GPU, then by accumulated part."""
    for key in ("backbone_training", "heads_training"):
        batch, accumulate = experiment[key]["batch"], experiment[key]["accumulate"]
        if batch % (gpus * accumulate):
            yield (
                f"{key}.batch: found {batch}; accepted: a multiple of"
                f" gpus {gpus} x accumulate {accumulate}"
            )


def _fit_conflicts(experiment: dict, dataset: dict, found: Contents | None) -> Iterator[str]:
    """The network fits the images, as far as is known."""
    net, codec = experiment["backbone"], dataset.get("autoencoder")
    channels, size = network_shape(dataset)
    for key, expected in (("img_size", size), ("in_chans", channels)):
        if expected is not None and net[key] != expected:
            yield f"backbone.{key}: found {net[key]}; dataset {experiment['dataset']} has {expected}"
    classes, conditional = dataset_classes(dataset, found), net.get("num_classes", -1) > 0
    if conditional and classes not in (None, net["num_classes"] - experiment["null_class"]):
        accepted = "-1" if classes < 0 else f"-1, or {classes} (and one more with null_class)"
        yield f"backbone.num_classes: found {net['num_classes']}; accepted: {accepted}"
    for key in ("backbone_training", "heads_training"):
        if experiment[key]["flips"] and codec and not codec["flips"]:
            yield (
                f"{key}.flips: found true; accepted: false without flips of the autoencoder"
                f" of dataset {experiment['dataset']}"
            )
    order = PROTOCOLS[experiment["protocol"]].class_order
    if dataset.get("class_order", order) != order and conditional:
        yield (
            f"dataset: {experiment['dataset']} has class_order {dataset['class_order']};"
            f" protocol {experiment['protocol']} needs {order}"
        )


def _seed_conflicts(experiment: dict) -> Iterator[str]:
    """Sampling seeds that two trainings could share."""
    trained, grids = experiment["train_seeds"], experiment["grid"].values()
    spread = {seed for grid in grids for seed in grid["spread"]["seeds"]}
    seeds = sorted({experiment["sampling"]["seed"], *spread})
    if len(trained) > 1 and seeds[-1] >= SEEDS_OF_A_TRAINING:
        yield (
            f"train_seeds: found {trained} with the sampling seeds {seeds}; accepted: one training seed,"
            f" or sampling seeds below {SEEDS_OF_A_TRAINING}"
        )


def _metric_conflicts(experiment: dict, dataset: dict, found: Contents | None) -> Iterator[str]:
    metric, classes = experiment["metric"], dataset_classes(dataset, found)
    name, needed = metric["name"], space(metric["name"])
    if needed.weights and "classifier" in metric:
        yield f"metric.classifier: not a key of {name}, whose features are those of {needed.weights}"
    if not needed.weights and classes in (-1, 1):
        has = "one class alone" if classes == 1 else "no classes"
        of = experiment["dataset"] if found else dataset["source"]
        yield (
            f"metric.name: found {name!r}; accepted: fid, fd_dinov2 or fd_inception64, without classifier"
            f" ({of} has {has})"
        )
    elif not needed.weights and "classifier" not in metric and name not in shipped_classifiers():
        shipped = ", ".join(shipped_classifiers())
        yield (
            f"metric.classifier: missing; {name} is measured in the features of a classifier. Without this key a"
            f" shipped one is used, which there is for: {shipped}"
        )
    if name.endswith(_DERIVED):
        yield f"metric.name: found {name!r}; accepted: names that do not end in {', '.join(_DERIVED)}"
    yield from _reference_conflicts(experiment, dataset, found)


def _reference_conflicts(experiment: dict, dataset: dict, found: Contents | None) -> Iterator[str]:
    """There are enough images to measure: sampled ones, held-out ones, and those of the reference."""
    name, needed = experiment["metric"]["name"], space(experiment["metric"]["name"])
    count, held_out = experiment["metric"].get("reference"), dataset["held_out"]
    count, held_out = (None if is_share(number) else number for number in (count, held_out))
    subset, where = dataset.get("subset"), f"datasets.{experiment['dataset']}"
    if count and subset and count > subset:
        yield f"metric.reference: found {count}; accepted: up to the {subset} of the dataset's subset"
    if held_out is not None and held_out < _FEWEST_HELD_OUT:
        yield (
            f"{where}.held_out: found {held_out}; accepted: {_FEWEST_HELD_OUT} or more, to be measured as"
            " samples are"
        )
    left = training_images(dataset, found)
    if left is not None and left <= needed.features:
        yield (
            f"{where}.held_out: found {held_out}; it leaves {left} images to train on,"
            f" accepted: more than the {needed.features} features of {name}"
        )
    elif count and left is not None and count > left:
        yield f"metric.reference: found {count}; accepted: up to the {left} training images"
    needs_images = [
        ("sampling.images", experiment["sampling"]["images"]),
        ("metric.reference", count),
        (f"{where}.subset", subset),
    ]
    if not needed.weights:
        needs_images.append((f"{where}.held_out", held_out))
    for key, number in needs_images:
        if number is not None and number <= needed.features:
            yield f"{key}: found {number}; accepted: more than the {needed.features} features of {name}"


def _classifier_conflicts(experiment: dict, name: str, experiments: dict) -> Iterator[str]:
    """Experiments that share a dataset and a metric share one classifier, shipped or trained."""
    metric, dataset = experiment["metric"], experiment["dataset"]
    for other, theirs in experiments.items():
        if other == name:
            return  # a pair is reported once, at its later experiment
        shared = (theirs["dataset"], theirs["metric"]["name"]) == (dataset, metric["name"])
        if shared and theirs["metric"].get("classifier") != metric.get("classifier"):
            yield (
                f"metric.classifier: differs from that of {other}, which shares its dataset;"
                f" accepted: the same, or another name than {metric['name']}"
            )


def _reuse_conflicts(experiment: dict, name: str, experiments: dict) -> Iterator[str]:
    if "pretrained" in experiment and "full" in experiment["reuse"]:
        yield "reuse.full: accepted: either pretrained weights or another experiment's"
    roles = {*backbones(experiment), "heads"}
    for role in experiment["reuse"].keys() - roles:
        yield f"reuse.{role}: accepted: {', '.join(sorted(roles))}"
    for role, other in experiment["reuse"].items():
        if role not in roles:
            continue
        seen = [name]
        while other and other in experiments and other not in seen:
            seen.append(other)
            other = experiments[other].get("reuse", {}).get(role)
        if other:
            yield f"reuse.{role}: found {other!r}; accepted: another experiment that trains it"
            continue
        theirs = experiments[seen[-1]]
        keys = ["backbone", "null_class", "prediction"]
        keys += ["shallow_depth"] if role == "shallow" else []
        further = [one["networks"].get(role) for one in (experiment, theirs)]
        if further[0] != further[1]:
            yield f"reuse.{role}: {seen[-1]} has another networks.{role}: {further[1]}"
        if experiment["protocol"] == "corrected":
            keys += ["schedule", "time_input"]
        if role == "heads":
            keys += ["protocol"]
        for key in keys:
            if experiment[key] != theirs[key]:
                yield f"reuse.{role}: {seen[-1]} has another {key}: {theirs[key]!r}"
        if role == "heads" and _owner(experiments, name, "full") != _owner(
            experiments, seen[-1], "full"
        ):
            yield (
                f"reuse.heads: found {experiment['reuse']['heads']!r}; accepted: with the full backbone"
                f" that those heads are on (reuse.full: {_owner(experiments, seen[-1], 'full')})"
            )
        missing = set(experiment["train_seeds"]) - set(theirs["train_seeds"])
        if missing:
            yield f"reuse.{role}: {seen[-1]} has no training seed {sorted(missing)}"


def _owner(experiments: dict, name: str, role: str) -> str:
    """The experiment that trains the model in `role`: `reuse` is followed, once around if it leads in a circle."""
    seen = []
    while name in experiments and name not in seen:
        seen.append(name)
        name = experiments[name]["reuse"].get(role, name)
    return seen[-1]


def _grid_conflicts(experiment: dict) -> Iterator[str]:
    yield from _seed_conflicts(experiment)
    for sampler, grid in experiment["grid"].items():
        if 0 not in grid["t_s"]:
            yield f"grid.{sampler}.t_s: 0 is missing; every comparison is against the full backbone"
        sampling = experiment["sampling"]
        batches = math.ceil(sampling["images"] / sampling["batch"])
        if grid["shards"] > batches:
            yield (
                f"grid.{sampler}.shards: found {grid['shards']}; accepted: up to the {batches} batches"
                f" of {sampling['images']} images"
            )
        yield from _eta_conflicts(experiment, grid, f"grid.{sampler}.eta")
        yield from _budget_conflicts(experiment, sampler)
        yield from _fewer_steps_conflicts(grid, f"grid.{sampler}.fewer_steps")
        spread = grid["spread"]
        if experiment["sampling"]["seed"] in spread["seeds"]:
            yield (
                f"grid.{sampler}.spread.seeds: found {spread['seeds']};"
                f" accepted: seeds other than sampling.seed {experiment['sampling']['seed']}"
            )
        named = [*experiment["schedules"], *experiment["budgets"]]
        for name in grid["schedules"]:
            if name not in named:
                accepted = (
                    ", ".join(named) or "names of schedules and budgets, of which there are none"
                )
                yield f"grid.{sampler}.schedules: found {name!r}; accepted: {accepted}"
        for key in ("t_s", "theta", "schedules"):
            for value in set(spread[key]) - set(grid[key]):
                yield f"grid.{sampler}.spread.{key}: found {value!r}; accepted: values of grid.{sampler}.{key}"


def _budget_conflicts(experiment: dict, sampler: str) -> Iterator[str]:
    """A schedule can be chosen for the sampler of each budget."""
    grid, guidance = experiment["grid"][sampler], experiment["sampling"]["guidance"]
    for name in grid["schedules"]:
        if name not in experiment["budgets"]:
            continue
        found = f"grid.{sampler}.schedules: found the budget {name!r}"
        if sampler not in ("ddpm", "ddim"):
            yield f"{found}; accepted: names of schedules; budgets are for ddpm and ddim"
        if sampler == "ddim" and grid["eta"]:
            yield f"{found} with eta {grid['eta']}; accepted: eta 0"
        if sampler == "ddim" and experiment["budgets"][name]["choose"] == "steps":
            yield f"{found} with choose: steps; accepted for ddim: switch, networks"
        if guidance:
            yield f"{found} with sampling.guidance {guidance}; accepted: guidance 0"
        budget = experiment["budgets"][name]
        least = _least_operations(experiment, grid["steps"], budget["choose"])
        if budget["operations"] < least * (1 - 1e-9):
            yield (
                f"budgets.{name}.operations: found {budget['operations']}; accepted with choose: {budget['choose']}"
                f" and {grid['steps']} steps of {sampler}: from {math.ceil(1000 * least) / 1000:g}"
            )


def _least_operations(experiment: dict, steps: int, choose: str) -> float:
    """The operations of the cheapest choice, over the full backbone's; 0 where it is not known yet.

    All steps but the last are made by the cheapest network. Where steps are chosen, the profile decides which may go.
    """
    if choose == "steps" or not {"img_size", "num_classes"} <= experiment["backbone"].keys():
        return 0.0
    names = ["full", "shallow"]
    if choose == "networks":
        names += [name for name, made in choosable(experiment).items() if made]
    full, *others = (call_operations(experiment, name) for name in names)
    return ((steps - 1) * min(full, *others) / full + 1) / steps


def _eta_conflicts(experiment: dict, grid: dict, key: str) -> Iterator[str]:
    """The variance that the released DDIM adds is real, on the sampler's timesteps and on those of its schedules."""
    eta, protocol = grid.get("eta", 0), experiment["protocol"]
    if not (eta and PROTOCOLS[protocol].ddim_one_step_variance):
        return
    on = {f"{grid['steps']} steps": grid["steps"]}
    for name in grid["schedules"]:
        own = experiment["schedules"].get(name, {}).get("timesteps")
        if own and not misplaced(own):
            on[f"the timesteps of {name}"] = own
    for what, steps in on.items():
        limit = one_step_eta_limit(noise_schedule(experiment["schedule"]), steps)
        if eta > limit:
            yield (
                f"{key}: found {eta}; accepted under protocol {protocol} and {what}: 0 to {limit:.3g}"
                " (the released variance is not real beyond)"
            )


def _fewer_steps_conflicts(grid: dict, key: str) -> Iterator[str]:
    """Each number of steps stands once and is below the sampler's own; its t_s are sampled at the own steps, too."""
    counts = [fewer["steps"] for fewer in grid["fewer_steps"]]
    for steps in sorted({steps for steps in counts if counts.count(steps) > 1}):
        yield f"{key}: found steps {steps} more than once; accepted: once, with all its t_s"
    for fewer in grid["fewer_steps"]:
        steps = fewer["steps"]
        if steps >= grid["steps"]:
            yield f"{key}.steps: found {steps}; accepted: fewer than the sampler's {grid['steps']}"
        for t_s in sorted(set(fewer["t_s"]) - set(grid["t_s"])):
            yield (
                f"{key}.t_s: found {t_s} for {steps} steps; accepted: values of the sampler's t_s, whose calls are"
                " timed"
            )
