"""envs/: the container, as far as it can be held without building it, and the conda environments."""

import ast
import re
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
# where a package has another name than its module
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
RECIPE = (ROOT / "envs/Containerfile").read_text(encoding="utf-8")
WORKFLOW = [
    "Snakefile",
    "config",
    "duodiff",
    "envs",
    "profiles",
    "report",
    "rules",
    "workflow_scripts",
]


def test_the_container_copies_what_the_workflow_needs_from_where_it_is():
    copied = re.findall(r"^COPY (\S+) (\S+)$", RECIPE, re.M)
    assert {source for source, _ in copied} == {*WORKFLOW, "envs/requirements.txt"}
    for source, target in copied:
        assert (ROOT / source).exists()
        assert target in (source, "./", "/requirements.txt")


def test_the_container_has_the_python_that_requirements_are_locked_for():
    (version,) = re.findall(r"^FROM \S+/python:(3\.\d+)-slim$", RECIPE, re.M)
    assert f"--python-version {version} --generate-hashes" in (ROOT / "Makefile").read_text(
        encoding="utf-8"
    )
    for path in ENVIRONMENTS:
        assert (
            f"python ={version}" in yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
        )


def test_the_container_installs_as_make_setup_does():
    for line in ("pip sync", "--compile-bytecode", "--require-hashes", "'uv>=0.9'"):
        assert line in RECIPE
        assert line in (ROOT / "Makefile").read_text(encoding="utf-8")


def pinned(path: Path) -> dict[str, str]:
    """The packages of a conda environment with their versions."""
    environment = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(pin.split("==") for pin in environment["dependencies"][-1]["pip"])


def test_conda_environments_hold_the_locked_versions():
    lock = {}
    for line in (ROOT / "envs/requirements.txt").read_text(encoding="utf-8").splitlines():
        name, separator, rest = line.partition("==")
        if separator and not line.startswith((" ", "#")) and ">= '3.12'" not in rest:
            lock[name] = rest.split()[0]
    found = [(name, version) for path in ENVIRONMENTS for name, version in pinned(path).items()]
    assert [lock[name] for name, _ in found] == [version for _, version in found]
    wanted = (
        (ROOT / "envs/requirements.in")
        .read_text(encoding="utf-8")
        .split("# development")[0]
        .splitlines()
    )
    assert {name for name, _ in found} == {
        line.split(">=")[0] for line in wanted if line and not line.startswith("#")
    }


@cache
def statements(path: Path) -> list[ast.stmt]:
    """The statements that run when a module is imported: also those of `with job.importing()`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    blocks = [node.body for node in body if isinstance(node, ast.With)]
    return [*body, *chain.from_iterable(blocks)]


def imports(path: Path) -> set[str]:
    """The packages that a script needs to start: it or a module of the project imports them, not inside a function."""
    pending, seen, packages = [path], set(), set()
    while pending:
        source = pending.pop()
        if source in seen or not source.exists():
            continue
        seen.add(source)
        for node in statements(source):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            packages |= {name.partition(".")[0] for name in names}
            ours = [name for name in names if name.startswith("duodiff.")]
            pending += [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in ours]
    packages -= {"duodiff", *sys.stdlib_module_names}
    return {DISTRIBUTIONS.get(package, package) for package in packages}


def test_the_environment_of_the_items_holds_what_their_scripts_import():
    scripts = [
        path
        for pattern in ("make_*.py", "plot_*.py", "summarise.py", "describe_run.py")
        for path in (ROOT / "workflow_scripts").glob(pattern)
    ]
    found = set().union(*map(imports, scripts))
    assert found == set(pinned(ROOT / "envs/figures.yaml"))


def test_seaborn_is_in_the_environment_of_the_items_alone():
    """It draws their figures; a training's progress.png is drawn without it."""
    assert "seaborn" not in pinned(ROOT / "envs/environment.yaml")
    for name in ("train_backbone", "train_heads", "train_autoencoder", "sample_images"):
        assert "seaborn" not in imports(ROOT / f"workflow_scripts/{name}.py")
