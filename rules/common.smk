# The validated configuration, wildcard constraints, and the helper functions of all rules.
import ast
import json
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from duodiff import config as study

try:
    study.validate(config)
except study.ConfigError as error:
    raise WorkflowError(error)

EXPERIMENTS = config["experiments"]
# Scripts find the package whether or not it is installed in the environment a job runs in.
shell.prefix(f'set -euo pipefail; export PYTHONPATH="{ROOT}"; ')


wildcard_constraints:
    experiment="|".join(EXPERIMENTS),
    train_seed=r"\d+",
    seed=r"\d+",
    backbone="full|shallow",
    sampler="ddpm|ddim",
    method="duodiff|adadiff",
    setting=r"t_s=\d+|theta=q?[0-9.e-]+",


STUDY = "results/{experiment}/train{train_seed}"
LOG = "logs/{experiment}/train{train_seed}"
BENCHMARK = "benchmarks/{experiment}/train{train_seed}"
# Where a run names no cores (a dry run, a report, a cluster): those the job computes with.
ALL_CORES = workflow.resource_settings.cores or config["threads"]
GPU = int(config["device"] == "cuda")


def experiment(wc):
    """The configuration of a job's experiment."""
    return EXPERIMENTS[wc.experiment]


def option(*keys):
    """A params function: the value at these keys of the job's experiment, as JSON if it is a section."""

    def value(wc):
        found = experiment(wc)
        for key in keys:
            found = found[key]
        return json.dumps(found) if isinstance(found, dict) else found

    return value


def code(script):
    """The script of a rule and every module of the package it imports, directly or not.

    As an input, it makes an edit of any of them rerun the rule, and nothing else's edit.
    """
    pending, found = [ROOT / f"workflow_scripts/{script}.py"], []
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.append(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "duodiff"
            ):
                for name in [
                    node.module,
                    *(f"{node.module}.{a.name}" for a in node.names),
                ]:
                    imported = ROOT.joinpath(*name.split(".")).with_suffix(".py")
                    if imported.exists():
                        pending.append(imported)
    return sorted(str(path.relative_to(ROOT)) for path in found)


def cell_models(wc):
    """The checkpoints (and observed uncertainties) one grid cell needs, by role."""
    study_folder, setting = STUDY.format(**wc), wc.setting
    roles = {"full": setting != "t_s=1000", "shallow": setting.startswith("t_s=")}
    roles["shallow"] &= setting != "t_s=0"
    roles["heads"] = setting.startswith("theta=")
    needed = {
        role: f"{study_folder}/{role}/manifest.json"
        for role, used in roles.items()
        if used
    }
    if setting.startswith("theta=q"):
        needed["quantiles"] = f"{study_folder}/profile/quantiles.json"
    return needed


def study_models(wc):
    """All checkpoints of a study, and the observed uncertainties."""
    study_folder = STUDY.format(**wc)
    roles = ("full", "shallow", "heads")
    needed = {role: f"{study_folder}/{role}/manifest.json" for role in roles}
    return needed | {"quantiles": f"{study_folder}/profile/quantiles.json"}


def model_arguments(input):
    """Command-line arguments for the checkpoints among a job's named inputs."""
    roles = ("full", "shallow", "heads", "quantiles")
    return " ".join(f"--{role} {input[role]}" for role in roles if role in input.keys())


def samples(wc, method=""):
    """Manifests of the sample stores of one study, of all cells or of one method's."""
    points = study.grid_points(experiment(wc))
    return [
        f"{STUDY.format(**wc)}/samples/{point.path}/manifest.json"
        for point in points
        if point.method.startswith(method)
    ]


def latency_grid(wc):
    """Every sampler with its settings, as JSON."""
    chosen = experiment(wc)
    return json.dumps(
        [
            [study.sampler_options(chosen, name), [s for _, s in study.settings(grid)]]
            for name, grid in chosen["grid"].items()
        ]
    )


def studies(pattern):
    """`pattern` for every experiment and training seed."""
    return [
        pattern.format(experiment=name, train_seed=seed)
        for name, chosen in EXPERIMENTS.items()
        for seed in chosen["train_seeds"]
    ]


def figure5_samples():
    """Sample stores of the first study of every experiment, DDPM, first sampling seed."""
    found = []
    for name, chosen in EXPERIMENTS.items():
        folder = STUDY.format(experiment=name, train_seed=chosen["train_seeds"][0])
        found += [
            f"{folder}/samples/{point.path}/manifest.json"
            for point in study.grid_points(chosen)
            if point.sampler == "ddpm" and point.seed == chosen["sampling"]["seed"]
        ]
    return found
