"""The house: which room imports which, and how long lists of arguments may be; read from the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "duodiff").rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "workflow_scripts").glob("*.py"))]
MOST_POSITIONAL = 5
TEXTS = [
    *(
        p
        for room in ("duodiff", "workflow_scripts", "bench", "docs", "tests")
        for p in (ROOT / room).rglob("*.py")
    ),
    *(ROOT / "rules").glob("*.smk"),
    ROOT / "Snakefile",
]


def floors() -> dict[str, int]:
    """The floor of each room, as the first column of docs/architecture.md's table of floors names them."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("## The floors")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {room: i for i, row in enumerate(rows) for room in re.findall(r"`(\w+)/?`", row)}


def imported(source: str) -> set[str]:
    """The modules of the package that a module imports, at its top or inside a function, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("duodiff.")}


def climbing(room: str, source: str, order: dict[str, int]) -> set[str]:
    """The rooms on a higher floor than `room` that `source`, a module of it, imports."""
    rooms = {name.split(".")[1] for name in imported(source)}
    return {other for other in rooms if other in order and order[other] > order[room]}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "duodiff")))
def test_a_module_imports_from_its_floor_or_a_lower_one(path):
    order, room = floors(), path.relative_to(ROOT / "duodiff").parts[0].removesuffix(".py")
    if room == "__init__":
        assert not imported(path.read_text(encoding="utf-8"))
        return
    assert room in order, f"docs/architecture.md has no floor for {room}"
    assert climbing(room, path.read_text(encoding="utf-8"), order) == set()


def test_an_import_of_a_higher_floor_is_found():
    order = floors()
    planted = (
        "def f():\n    from duodiff.training.loop import fit\n    import duodiff.metrics.flops\n"
    )
    assert climbing("sampling", planted, order) == {"metrics"}
    assert climbing("data", planted, order) == {"training", "metrics"}
    assert climbing("metrics", planted, order) == set()
    assert {"training", "sampling"} <= climbing(
        "uvit", "from duodiff import training, sampling", order
    )


def test_sampling_imports_nothing_of_training():
    for path in (ROOT / "duodiff/sampling").glob("*.py"):
        assert not {n for n in imported(path.read_text(encoding="utf-8")) if "training" in n}, path


def test_no_module_is_part_of_a_circle():
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in MODULES}
    graph = {n: imported(p.read_text(encoding="utf-8")) & names.keys() for n, p in names.items()}
    while leaves := [name for name, others in graph.items() if not others & graph.keys() - {name}]:
        for name in leaves:
            del graph[name]
    assert not graph


def many_positional(source: str) -> list[str]:
    """Calls with more than five positional arguments, and functions that accept more, as "line: name"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}(...)")
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in node.args.posonlyargs + node.args.args]
            if len([n for n in names if n not in ("self", "cls")]) > MOST_POSITIONAL:
                found.append(f"{node.lineno}: def {node.name}")
    return found


def test_a_long_list_of_positional_arguments_is_found():
    assert many_positional("f(1, 2, 3, 4, 5, 6)\n") == ["1: f(...)"]
    assert many_positional("def f(self, a, b, c, d, e, g): pass\n") == ["1: def f"]
    assert many_positional("def f(a, b, c, d, e, *, g): f(1, 2, 3, 4, 5, g=6)\n") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arguments_are_named_from_the_sixth(path):
    script = (
        path.parent.name == "workflow_scripts"
    )  # whose main function a command line calls, by names
    found = many_positional(path.read_text(encoding="utf-8"))
    assert [f for f in found if not (script and f.endswith(f"def {path.stem}"))] == []


def without_encoding(source: str) -> list[str]:
    """Calls that read or write text in the encoding of the locale, as "line: name".

    Ruff's PLW1514 finds only those whose types it can infer.
    """
    return [
        f"{node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _of_the_locale(node)
    ]


def _of_the_locale(call: ast.Call) -> bool:
    named = {keyword.arg for keyword in call.keywords}
    if "encoding" in named:
        return False
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        mode = call.args[1] if len(call.args) > 1 else ast.Constant("r")
        return isinstance(mode, ast.Constant) and "b" not in mode.value
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = {"read_text": 0, "write_text": 1}  # arguments, where the encoding is not among them
    return len(call.args) <= given.get(name, -1) or name == "FileHandler" or "text" in named


def test_text_in_the_encoding_of_the_locale_is_found():
    found = (
        "a.read_text()\nb.write_text('')\nopen(c, 'w')\nrun(d, text=True)\nx.run(d, text=True)\n"
    )
    assert [line[0] for line in without_encoding(found)] == ["1", "2", "3", "4", "5"]
    assert without_encoding(found.replace(")", ", encoding='utf-8')").replace("(,", "(")) == []
    assert without_encoding("open(a, 'rb')\nimage.open(b)\nwrite_text(path, text)\n") == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_text_is_utf_8(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        assert without_encoding(text) == []
    else:  # no Python to parse
        assert re.findall(r"\bread_text\(\)|\bopen\(\w+\)|text=True", text) == []
