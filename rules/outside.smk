# The files from outside that jobs read: they are inputs of no rule, and are compared at the start of a run.
import os
import shlex

from snakemake.io import apply_wildcards

from duodiff.running import receipts
from duodiff.spaces import space, weights_path
from duodiff.study.families import files_read


def own_data(wc):
    """The files and folders from outside that a dataset is read from, by name."""
    return files_read(dataset(wc), DATA)


def own_autoencoder(wc):
    """The files of an autoencoder's published weights, by name: below the data folder, or in the hub's cache."""
    codec = dataset(wc)["autoencoder"]
    saved = ("config.json", AUTOENCODER_WEIGHTS)  # in a folder, as diffusers names them
    if "hub" in codec:
        from huggingface_hub.constants import HF_HUB_CACHE

        model = f"models--{codec['hub'].replace(os.sep, '--')}"
        folder = Path(HF_HUB_CACHE, model, "snapshots", codec["revision"])
        return {f"{codec['hub']}/{name}": folder / name for name in saved}
    path = DATA / codec["path"]
    if not path.is_dir():
        return {codec["path"]: path}
    return {f"{codec['path']}/{name}": path / name for name in saved}


def own_weights(wc):
    """The file of an experiment's published weights, by name."""
    path = experiment(wc)["pretrained"]["path"]
    return {path: DATA / path}


def own_extractor(wc):
    """The file of an extractor's published weights, by name."""
    return {wc.extractor: weights_path(wc.extractor, DATA, config["extractors"])}


class Named(dict):
    """Wildcards of a job that is not planned."""

    __getattr__ = dict.__getitem__


def refuse_changes_outside():
    """Raises WorkflowError if files from outside have changed since a job of this run read them.

    They are inputs of no rule: a run that needs no more of them than its finished results works without them. Only
    those of the selected experiments count, and of the experiments whose networks these use.
    """
    used = {owner(config, name, role) for name in SELECTED for role in ROLES}
    used = {name: EXPERIMENTS[name] for name in sorted(used | {*SELECTED})}
    read = []
    for name in sorted({chosen["dataset"] for chosen in used.values()}):
        wc = Named({"dataset": name})
        read += [(FETCH_DATASET, "fetch_dataset", wc)] * ("path" in DATASETS[name])
        read += [(PACK_DATASET, "pack_dataset", wc)] * ("path" in DATASETS[name])
        if "train" not in DATASETS[name].get("autoencoder", {"train": None}):
            read.append((FETCH_AUTOENCODER, "fetch_autoencoder", wc))
    for name, chosen in used.items():
        if "pretrained" in chosen:
            wc = Named({"experiment": name})
            read.append((IMPORT_WEIGHTS, "import_weights", wc))
    weights = {space(chosen["metric"]["name"]).weights for chosen in used.values()}
    for name in sorted(weights - {None}):
        wc = Named({"extractor": name})
        read.append((FETCH_EXTRACTOR, "fetch_extractor", wc))
    changes, files = {}, []
    for work, rule, wc in read:
        output = apply_wildcards(str(getattr(rules, rule).output[0]), wc)
        file = receipts.receipt_of(output)
        found = receipts.check_outside(file, work.watched(wc), work.decisive(wc))
        changes |= dict.fromkeys(found)
        files += [str(file)] if found else []
    if changes:
        shown = "\n  ".join([*changes][:5])
        more = f"\n  and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise WorkflowError(
            f"what was read from outside has changed:\n  {shown}{more}\n"
            f"Put it back, or take it in: rm {shlex.join(files)}"
        )
