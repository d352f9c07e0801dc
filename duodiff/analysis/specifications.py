"""The paper's Tables 3 and 4, its model specifications (Appendix C), published and ours (no torch)."""

from itertools import product
from pathlib import Path

import pandas as pd

from duodiff.paper import PAPER_TITLES

QUANTITIES = {
    "img_size": "Image size (pixels, or latents)",
    "patch_size": "Patch size",
    "in_chans": "Channels",
    "embed_dim": "Dimension",
    "num_heads": "Attention heads",
    "mlp_ratio": "MLP ratio",
    "qkv_bias": "Bias of q, k, v",
    "mlp_time_embed": "MLP on the time embedding",
    "conv": "Final 3x3 convolution",
    "num_classes": "Classes",
    "tokens": "Tokens",
    "depth": "Blocks",
    "parameters_m": "Parameters (million)",
    "gflops": "GFLOPs per image and step",
    "timestep_aware": "Uncertainty sees the time (Eq. 4)",
    "timesteps": "Timesteps T",
    "schedule": "Noise schedule",
    "time_input": "Time as the network is fed it",
    "prediction": "Prediction",
    "train_seeds": "Training seeds",
    "weights": "Weights",
    "steps": "Steps",
    "batch": "Batch (images)",
    "accumulate": "Parts a batch is computed in",
    "lr": "Learning rate",
    "lr_schedule": "Learning rate after warm-up",
    "betas": "AdamW's betas",
    "weight_decay": "Weight decay",
    "warmup_steps": "Warm-up (steps)",
    "grad_clip": "Gradient clipping (norm)",
    "precision": "Precision",
    "deterministic": "Repeats to the bit on a GPU",
    "ema": "Decay of averaged weights (0: none)",
    "flips": "Mirrored images",
    "label_dropout": "Label dropout",
    "init": "Initialisation",
}
"""What a row's `quantity` is called, in the order of the tables."""

_MODELS = {
    "all": "All models",
    "both": "Both backbones",
    "full": "Full backbone",
    "shallow": "Shallow backbone",
    "adadiff": "AdaDiff on the full",
    "backbones": "Backbones trained here",
    "heads": "AdaDiff's heads",
}
_MEASURED = ("parameters_m", "gflops")  # whose difference is a number


def published_values(path: Path) -> pd.DataFrame:
    """The published values in a CSV file, as text: columns dataset, model, quantity, value, certainty."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def architecture_table(described: dict, paper: pd.DataFrame, studies: dict) -> pd.DataFrame:
    """Table 3, one row a quantity of one network: dataset, model, quantity, paper, ours, difference, certainty.

    `described` is describe_architectures' JSON; `studies` maps an experiment to its title and paper_dataset. After
    them come the paper's own datasets, whose networks are built from config/paper.yaml. A setting's difference is
    "equal" or "differs", that of parameters and GFLOPs ours minus the paper's.
    """
    ours = {
        kind: {name: _networks(found) for name, found in group.items()}
        for kind, group in described.items()
    }
    return _tabulate(ours["studies"], ours["paper"], paper, studies)


def training_table(published: dict, paper: pd.DataFrame, studies: dict) -> pd.DataFrame:
    """Table 4, in the columns of `architecture_table`, from `config.training` of the paper's experiments (by
    dataset) and, at the key "training", of each of `studies`."""
    ours = {name: _flat(study["training"]) for name, study in studies.items()}
    theirs = {name: _flat(training) for name, training in published.items()}
    return _tabulate(ours, theirs, paper, studies)


def drawn(described: dict, studies: dict) -> tuple[str, dict]:
    """Title and networks that the diagrams show: of the first study that has AdaDiff, else of the paper's first."""
    for name, study in studies.items():
        if "adadiff" in described["studies"][name]:
            return study["title"], described["studies"][name]
    name, networks = next(iter(described["paper"].items()))
    return PAPER_TITLES[name], networks


def parts(networks: dict, roles: list[str]) -> pd.DataFrame:
    """The parts of the drawn networks in the order they run: role, part, kind, sizes in and out, parameters."""
    rows = []
    for role in roles:
        found = networks[role]
        stages = found.get("stages", found.get("output_head"))
        rows += [{"role": role, "part": stage["name"]} | stage for stage in stages]
        for i, head in enumerate(found.get("heads", [])):
            for kind, one in head.items():
                about = {"part": f"{kind} head {i}", "kind": f"before block {one['layer']}"}
                rows.append({"role": role, "parameters": one["parameters"]} | about)
        for name, shape in found.get("uncertainty_head", {}).get("operations", []):
            rows.append({"role": role, "part": "uncertainty", "kind": name, "out": shape})
    columns = ["role", "part", "kind", "in", "out", "parameters"]
    return pd.DataFrame(rows).reindex(columns=columns).astype({"parameters": "Int64"})


def _networks(described: dict) -> dict[tuple[str, str], object]:
    """The values of one experiment's networks by model and quantity."""
    full, found = described["full"], {}
    for key, value in full["architecture"].items():
        if key != "depth":
            found["both", key] = value
    found["both", "num_classes"] = max(0, full["architecture"]["num_classes"]) or "none"
    found["both", "tokens"] = full["tokens"]
    for role in ("full", "shallow"):
        found[role, "depth"] = described[role]["architecture"]["depth"]
    for role in described:
        found[role, "parameters_m"] = described[role]["parameters"] / 1e6
        found[role, "gflops"] = described[role]["gflops"]
    if "adadiff" in described:
        aware = described["adadiff"]["uncertainty_head"]["timestep_aware"]
        found["adadiff", "timestep_aware"] = aware
        found["adadiff", "parameters_m"] += full["parameters"] / 1e6
    return found


def _flat(training: dict) -> dict[tuple[str, str], object]:
    return {(of, key): value for of, values in training.items() for key, value in values.items()}


def _tabulate(ours: dict, published: dict, paper: pd.DataFrame, studies: dict) -> pd.DataFrame:
    rows = []
    for name, study in studies.items():
        rows += _compare(study["title"], ours[name], _values(paper, study["paper_dataset"]))
    shown = {study["paper_dataset"] for study in studies.values()}
    for name in published:
        if name not in shown:
            rows += _compare(PAPER_TITLES[name], published[name], _values(paper, name))
    return pd.DataFrame(rows)


def _values(paper: pd.DataFrame, dataset: str | None) -> dict[tuple[str, str], tuple[str, str]]:
    """The published (value, certainty) of a dataset by model and quantity; those that all share for None."""
    if dataset is not None:
        paper = paper[paper["dataset"] == dataset]
    keys = paper.groupby(["model", "quantity"], sort=False)
    paper = paper[(keys["value"].transform("nunique") == 1)]
    return {(r.model, r.quantity): (r.value, r.certainty) for r in paper.itertuples()}


def _compare(title: str, ours: dict, paper: dict) -> list[dict]:
    order = list(QUANTITIES)
    keys = sorted(ours | paper, key=lambda k: (list(_MODELS).index(k[0]), order.index(k[1])))
    return [
        {"dataset": title, "model": _MODELS[model], "quantity": QUANTITIES[quantity]}
        | _row(quantity, ours.get((model, quantity)), *paper.get((model, quantity), (None, None)))
        for model, quantity in keys
    ]


def _row(quantity: str, ours, paper: str | None, certainty: str | None) -> dict:
    row = {"paper": paper, "ours": _text(ours), "difference": None, "certainty": certainty}
    if ours is None or paper is None:
        return row
    if quantity in _MEASURED:
        return row | {"difference": f"{ours - float(paper):.9g}"}
    return row | {"difference": "equal" if _text(ours) == paper else "differs"}


def _text(value) -> str | None:
    """A value as the published tables spell it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.9g}"
    return None if value is None else str(value)


def readable_specifications(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module to read, as text: one row a quantity; paper, ours and difference a dataset.

    A published value with a star is not in the paper (the CSV file has its certainty); parameters and GFLOPs are
    rounded as the published ones.
    """
    found = set(zip(table["model"], table["quantity"], strict=True))
    rows = [row for row in product(_MODELS.values(), QUANTITIES.values()) if row in found]
    columns = {("", "Model"): [row[0] for row in rows], ("", "Quantity"): [row[1] for row in rows]}
    for title, mine in table.groupby("dataset", sort=False):
        uncertain = mine["certainty"].notna() & ~mine["certainty"].str.startswith(
            "published", na=False
        )
        shown = mine.assign(paper=mine["paper"] + uncertain.map({True: "*", False: ""}))
        shown = shown.set_index(["model", "quantity"]).reindex(rows)
        for name in ("paper", "ours", "difference"):
            if shown[name].notna().any():
                cells = zip(rows, shown[name], strict=True)
                columns[title, name] = [_rounded(row[1], value) for row, value in cells]
    return pd.DataFrame(columns)


def _rounded(quantity: str, value: str | None) -> str:
    if pd.isna(value):
        return "—"
    if quantity not in [QUANTITIES[name] for name in _MEASURED] or value.endswith("*"):
        return value
    return f"{float(value):.2f}" if abs(float(value)) >= 1 else f"{float(value):.2g}"
