"""What decides a result: edits of the code that mean something move its identity, and others do not."""

import ast
import shutil
from pathlib import Path

import pytest

from duodiff import identity
from duodiff.training import backbone
from unit.tiny_study import train

CHOSEN = ["linear", "t", "noise", "corrected", "ddpm", "digits", "fd_digits"]
"""What the parameters of the works name: entries of tables, and a protocol."""

WORKS = {
    path.stem: (f"workflow_scripts.{path.stem}", path.stem)
    for path in (identity.ROOT / "workflow_scripts").glob("*.py")
}
"""The function of every script: what the rules of the workflow are about."""


class Memory:
    """A function of a module's name and more that remembers its results until the module is edited."""

    def __init__(self, function):
        self.function, self.results = function.__wrapped__, {}

    def __call__(self, *arguments):
        if arguments not in self.results:
            self.results[arguments] = self.function(*arguments)
        return self.results[arguments]

    def forget(self, module: str) -> None:
        """Drops what was read of a module; what others refer to in it stays where it was."""
        self.results = {k: v for k, v in self.results.items() if k[0] != module}


REMEMBERED = ("_source", "_keys", "_read")


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package that `identity` reads in place of this one."""
    for folder in ("duodiff", "workflow_scripts"):
        shutil.copytree(identity.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    for name in REMEMBERED:
        monkeypatch.setattr(identity, name, Memory(getattr(identity, name)))
    return tmp_path / "duodiff"


def digests() -> dict[str, str]:
    """The identity of the code of each piece of work."""
    return {name: identity.code_digest(work, CHOSEN) for name, work in WORKS.items()}


def write(path: Path, text: str) -> None:
    """Writes a module of the copy, which is read anew."""
    path.write_text(text, encoding="utf-8")
    module = ".".join(path.relative_to(identity.ROOT).with_suffix("").parts)
    for name in REMEMBERED:
        getattr(identity, name).forget(module)


def moved(before: dict[str, str]) -> set[str]:
    return {name for name, now in digests().items() if now != before[name]}


def replace(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    write(path, text)


class _Harmless(ast.NodeTransformer):
    """Other docstrings, messages and hints; `ast.unparse` drops comments and formats anew."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        text = ast.Expr(ast.Constant("Another docstring."))
        docstring = ast.get_docstring(node) is not None
        node.body = [text, *node.body[docstring:]]
        node.returns = ast.Constant("int")
        return node

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            node.exc.args = [ast.Constant("another message")]
        return node


def test_comments_docstrings_formatting_messages_and_hints_move_nothing(package):
    before = digests()
    for path in package.rglob("*.py"):
        tree = ast.fix_missing_locations(_Harmless().visit(ast.parse(path.read_text("utf-8"))))
        write(path, "# a comment\n" + ast.unparse(tree))
    assert moved(before) == set()


FORMS = [
    "import numpy as np\nfrom duodiff import samplers\n\n"
    "def work(x):\n    return np.sum(samplers.to_uint8(x))\n",
    "from duodiff.samplers import to_uint8 as quantised\nimport numpy\n\n"
    "def work(x):\n    return numpy.sum(quantised(x))\n",
    "def work(x):\n    import numpy\n    from duodiff.samplers import to_uint8\n"
    "    return numpy.sum(to_uint8(x))\n",
]


def test_an_import_in_another_form_is_the_same_code(package):
    found = set()
    for form in FORMS:
        write(package / "planted.py", form)
        found.add(identity.code_digest(("duodiff.planted", "work")))
    assert len(found) == 1


SCOPES = [
    "def work(x):\n    found = [helper for helper in x]\n    return helper(found)\n",
    "def work(x):\n    found = [helper for helper in helper(x)]\n    return found\n",
    "def work(x):\n    found = sorted(x, key=lambda helper: -helper)\n    return helper(found)\n",
    "def work(x, helper=helper):\n    return helper(x)\n",
    "def work(x):\n    apply = lambda x, *, helper=helper: helper(x)\n    return apply(x)\n",
    "def work(x):\n    def inner(helper):\n        return helper\n    return inner(helper(x))\n",
    "def work(x):\n    class Inner:\n        def helper(self):\n            return self\n    return helper(x)\n",
]
"""Functions that use the module's `helper` beside another thing of this name in a scope inside or around."""


@pytest.mark.parametrize("form", SCOPES)
def test_a_name_bound_in_another_scope_hides_no_definition(package, form):
    found = set()
    for factor in (2, 3):
        helper = f"def helper(x):\n    return {factor} * x\n\n\n"
        write(package / "planted.py", helper + form)
        found.add(identity.code_digest(("duodiff.planted", "work")))
    assert len(found) == 2


def test_a_definition_moved_to_another_module_moves_nothing(package):
    before = digests()
    path = package / "samplers.py"
    text = path.read_text(encoding="utf-8")
    start = text.index("def to_uint8")
    write(package / "quantise.py", "import torch\nfrom torch import Tensor\n\n\n" + text[start:])
    write(path, "from duodiff.quantise import to_uint8\n" + text[:start])
    for name in REMEMBERED:  # of every module: the function is found elsewhere now
        getattr(identity, name).results.clear()
    assert moved(before) == set()


def table() -> dict[str, set[str]]:
    """The scripts whose identity an edit of each module moves, from identity.txt, which is kept by hand."""
    found: dict[str, set[str]] = {}
    for line in Path(__file__).with_name("identity.txt").read_text(encoding="utf-8").splitlines():
        if line.endswith(":"):
            found[line[:-1]] = set()
        else:
            found[list(found)[-1]] |= set(line.split())
    return found


class _Meaningful(ast.NodeTransformer):
    """One more statement in every function."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.body = [*ast.parse("edited = 1").body, *node.body]
        return node


def test_the_table_has_every_module(package):
    modules = {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.py")}
    assert {name for name in modules if not name.endswith("__init__")} == set(table())


@pytest.mark.slow
def test_a_meaningful_edit_of_a_module_moves_what_depends_on_it(package):
    before = digests()
    for module, scripts in table().items():
        path = package / f"{module}.py"
        text = path.read_text(encoding="utf-8")
        tree = ast.fix_missing_locations(_Meaningful().visit(ast.parse(text)))
        write(path, ast.unparse(tree))
        assert moved(before) == scripts, module
        write(path, text)


def test_another_entry_of_a_table_and_another_option_of_a_protocol_move_nothing(package):
    before = digests()
    replace(
        package / "protocol.py",
        ('    name="corrected",\n', '    name="corrected",\n    a_new_option=True,\n'),
        ("    name: str\n", "    name: str\n    a_new_option: bool\n"),
    )
    replace(package / "samplers.py", ('    "ddim": lambda', '    "new": None,\n    "ddim": lambda'))
    replace(package / "schedules.py", ('"sd": _sd', '"sd": _sd, "new": _sd'))
    sampling = {"sample_cells", "sample_images", "profile_displacements"}
    assert moved(before) <= sampling | {"measure_latency"}


def test_an_option_of_a_protocol_moves_what_reads_it(package):
    before = digests()
    path = package / "protocol.py"
    text = path.read_text(encoding="utf-8")
    start = text.index("CORRECTED = ")
    changed = text[start:].replace(
        "detach_uncertainty_target=True", "detach_uncertainty_target=False", 1
    )
    write(path, text[:start] + changed)
    assert moved(before) == {"train_heads"}


def test_parameters_have_one_form():
    one = {"lr": 1.0, "steps": [5, {"b": 2, "a": Path("x")}]}
    other = {"steps": [5.0, {"a": "x", "b": 2}], "lr": 1}
    assert identity.canonical(one) == identity.canonical(other)
    swapped = [{"steps": 5, "batch": 7}, {"steps": 7, "batch": 5}]
    assert identity.digest(swapped[0]) != identity.digest(swapped[1])


# --- unfinished trainings

UNMOVED = ("early_exit", "samplers", "running/job", "running/gpus", "training/monitor")


def edit_meaningfully(path: Path) -> None:
    tree = ast.fix_missing_locations(_Meaningful().visit(ast.parse(path.read_text("utf-8"))))
    write(path, ast.unparse(tree))


class Begun(Exception):
    """Raised where a training would begin, with the folder of its states."""


@pytest.fixture
def begin(monkeypatch, data, tmp_path):
    """A function that begins a backbone's training and gives the folder from which it would continue."""

    def fit(*arguments, saves, **options):
        raise Begun(saves.folder)

    def begin() -> Path:
        with pytest.raises(Begun) as begun:
            train(data, {}, tmp_path / "full/manifest.json")
        return begun.value.args[0]

    monkeypatch.setattr(backbone, "fit", fit)
    return begin


def test_an_unfinished_training_of_a_backbone_outlives_edits_of_other_code(package, begin):
    before = begin()
    for module in UNMOVED:
        edit_meaningfully(package / f"{module}.py")
        assert begin() == before, module
    edit_meaningfully(package / "uvit.py")
    assert begin() != before
