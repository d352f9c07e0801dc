"""The paper's Tables 3 and 4, the specifications of its models (Appendix C), published and ours (no torch)."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from duodiff.paper import PAPER_TITLES

Values = dict[tuple[str, str], Any]
"""The values of one experiment by model and quantity, as the configuration or the network has them."""

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
"""The title of each quantity, in the order of the tables."""

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


def architecture_table(described: dict, published: pd.DataFrame, studies: dict) -> pd.DataFrame:
    """Table 3, one row a quantity of one network: dataset, model, quantity, paper, ours, difference, certainty.

    `described` is describe_architectures' JSON; `published` are the `published_values` of Table 3; `studies` maps an
    experiment to its title and paper_dataset. After the studies come the paper's own datasets, whose networks are
    built from config/paper.yaml. The difference of a setting is "equal" or "differs"; the difference of parameters
    and GFLOPs is ours minus the paper's.
    """
    ours = {name: _networks(networks) for name, networks in described["studies"].items()}
    rebuilt = {name: _networks(networks) for name, networks in described["paper"].items()}
    return _tabulate(ours, rebuilt, published, studies)


def training_table(trainings: dict, published: pd.DataFrame, studies: dict) -> pd.DataFrame:
    """Table 4, in the columns of `architecture_table`.

    `trainings` are `study.grid.training_keywords` of the paper's experiments by dataset. Each of `studies` has its own
    at the key "training".
    """
    ours = {name: _flat(study["training"]) for name, study in studies.items()}
    rebuilt = {name: _flat(training) for name, training in trainings.items()}
    return _tabulate(ours, rebuilt, published, studies)


def _networks(networks: dict) -> Values:
    """The values of one experiment's networks (by role)."""
    full, values = networks["full"], {}
    for key, value in full["architecture"].items():
        if key != "depth":
            values["both", key] = value
    values["both", "num_classes"] = max(0, full["architecture"]["num_classes"]) or "none"
    values["both", "tokens"] = full["tokens"]
    for role in networks.keys() - {"adadiff"}:
        values[role, "depth"] = networks[role]["architecture"]["depth"]
    for role in networks:
        values[role, "parameters_m"] = networks[role]["parameters"] / 1e6
        values[role, "gflops"] = networks[role]["gflops"]
    if "adadiff" in networks:
        aware = networks["adadiff"]["uncertainty_head"]["timestep_aware"]
        values["adadiff", "timestep_aware"] = aware
        values["adadiff", "parameters_m"] += full["parameters"] / 1e6
    return values


def _flat(training: dict) -> Values:
    return {(of, key): value for of, values in training.items() for key, value in values.items()}


def _tabulate(
    ours: dict[str, Values], rebuilt: dict[str, Values], published: pd.DataFrame, studies: dict
) -> pd.DataFrame:
    """The values of our studies, then of the paper's other datasets as rebuilt here, beside the published ones."""
    rows = []
    for name, study in studies.items():
        of_paper = _published_of(published, study["paper_dataset"])
        rows += _compare(study["title"], ours[name], of_paper)
    shown = {study["paper_dataset"] for study in studies.values()}
    for name in rebuilt:
        if name not in shown:
            rows += _compare(PAPER_TITLES[name], rebuilt[name], _published_of(published, name))
    return pd.DataFrame(rows)


def _published_of(
    published: pd.DataFrame, dataset: str | None
) -> dict[tuple[str, str], tuple[str, str]]:
    """The published (value, certainty) of a dataset by model and quantity; for None, the values that all share."""
    if dataset is not None:
        published = published[published["dataset"] == dataset]
    keys = published.groupby(["model", "quantity"], sort=False)
    rows = published[keys["value"].transform("nunique") == 1]
    return {(r.model, r.quantity): (r.value, r.certainty) for r in rows.itertuples()}


def _compare(
    title: str, ours: Values, published: dict[tuple[str, str], tuple[str, str]]
) -> list[dict]:
    values = {**ours, **published}
    models, quantities = list(_titles(model for model, _ in values)), list(QUANTITIES)
    titles = _titles(models)
    keys = sorted(values, key=lambda key: (models.index(key[0]), quantities.index(key[1])))
    rows = []
    for model, quantity in keys:
        about = {"dataset": title, "model": titles[model], "quantity": QUANTITIES[quantity]}
        value, certainty = published.get((model, quantity), (None, None))
        compared = _row(quantity, ours.get((model, quantity)), value)
        rows.append(about | compared | {"certainty": certainty})
    return rows


def _titles(models: Iterable[str]) -> dict[str, str]:
    """The title of each model, in the order of the tables; further networks, by their names, come last."""
    further = sorted({*models} - _MODELS.keys())
    return _MODELS | {name: f"Network {name}" for name in further}


def _row(quantity: str, ours: Any, published: str | None) -> dict[str, str | None]:
    text = None if ours is None else _text(ours)
    row = {"paper": published, "ours": text, "difference": None}
    if text is None or published is None:
        return row
    if quantity in _MEASURED:
        return row | {"difference": f"{ours - float(published):.9g}"}
    return row | {"difference": "equal" if text == published else "differs"}


def _text(value: Any) -> str:
    """A value as the published tables spell it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def readable_specifications(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module to read, as text: one row a quantity, with paper, ours and difference for each dataset.

    A published value with a star is not in the paper; the CSV file has its certainty. Parameters and GFLOPs are
    rounded as the published ones.
    """
    there = set(zip(table["model"], table["quantity"], strict=True))
    models = dict.fromkeys([*_MODELS.values(), *table["model"]])
    rows = [row for row in product(models, QUANTITIES.values()) if row in there]
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
    if value is None or pd.isna(value):
        return "—"
    if quantity not in [QUANTITIES[name] for name in _MEASURED] or value.endswith("*"):
        return value
    return f"{float(value):.2f}" if abs(float(value)) >= 1 else f"{float(value):.2g}"
