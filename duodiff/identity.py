"""What decides a result: the code a piece of work reaches, by what it means, and its parameters in one form (no torch).

The code is read as text, definition by definition. From the work's own function every name is followed to the function,
class or constant of this package that it stands for, through imports of any form. Two versions are the same code where
the definitions reached mean the same: comments, docstrings, formatting, type hints, the texts of errors and logs, the
form and order of imports and the module a definition stands in are left out.

Not followed are `running/`, which decides how a job runs and no number, this module, and what only shows a training.
Other packages enter by the names used of them. Their versions are provenance, not identity.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parents[1]
"""The folder that the package stands in."""

_UNFOLLOWED = ("duodiff.running", "duodiff.identity", "duodiff.training.monitor")
_SAME = "duodiff.running.compiling.faster"
"""A function that returns its first argument, computed faster: in an identity the argument stands in its place."""

_LOGS = {"debug", "info", "warning", "error", "exception"}

Definition = tuple[str, str]
"""A module of this package, dotted, and the name of a definition in it; the empty name is what runs at its import."""


def canonical(value: Any) -> str:
    """JSON of `value` in one form: keys sorted, 1.0 as 1, paths as text; equal meaning gives equal text."""
    return json.dumps(_plain(value), sort_keys=True, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the `canonical` form, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value) if isinstance(value, Path) else value


def of(work: Definition, options: Any) -> str:
    """The identity of a piece of work: the digest of its code, as it is now, and of the options that decide it."""
    return digest({"code": code_digest(work, options), "options": options})


def code(work: Callable | Definition, parameters: Any = None) -> dict[str, str]:
    """Digests of the definitions that `work` reaches, by "module: name", so that a difference can be named.

    `work` is a function of this package, or a module's dotted name and a definition in it. The texts anywhere in
    `parameters` choose from tables: of a dictionary from names to functions, classes or modules (samplers, noise
    schedules, dataset families) the entries they name enter, and of a protocol they name the options that are read.
    """
    start = work if isinstance(work, tuple) else (work.__module__, work.__qualname__)
    chosen = frozenset(_texts(parameters))
    texts: dict[Definition, str] = {}
    read: set[str] = set()
    pending = [start]
    while pending:
        definition = pending.pop()
        if definition in texts:
            continue
        meaning = _meaning(*definition, chosen)
        texts[definition] = meaning.text
        read |= meaning.attributes
        pending += meaning.references
    options = _protocol_options(chosen, read)
    found = {f"{module}: {name}": _sha256(name + text) for (module, name), text in texts.items()}
    return found | {f"protocol: {k}": _sha256(v) for k, v in options.items()}


def code_digest(work: Callable | Definition, parameters: Any = None) -> str:
    """One digest of `code`, in which the places of definitions play no part."""
    return digest(sorted(code(work, parameters).values()))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


@cache
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Meaning:
    """A definition's normal form, the definitions it refers to, and the names of attributes it reads."""

    text: str
    references: tuple[Definition, ...] = ()
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Source:
    """A module as text: its definitions by name, what runs at its import, and what its imports' names stand for."""

    module: str
    definitions: dict[str, ast.stmt]
    effects: list[ast.stmt]
    imports: dict[str, str] = field(default_factory=dict)


@cache
def _source(module: str) -> Source:
    """A module of this package, or a workflow script, by its dotted name."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    definitions: dict[str, ast.stmt] = {}
    effects: list[ast.stmt] = []
    imports: dict[str, str] = {}
    for statement in tree.body:
        if _imports_alone(statement):
            for node in ast.walk(statement):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    imports |= _imported(node)
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            definitions[statement.name] = statement
        elif names := _assigned(statement):
            definitions |= dict.fromkeys(names, statement)
        elif not (_is_text(statement) or _is_main(statement)):
            effects.append(statement)
    return Source(module, definitions, effects, imports)


def _imports_alone(statement: ast.stmt) -> bool:
    """Whether a statement is an import, or a block of imports such as a script's `with job.importing()`."""
    if isinstance(statement, ast.With):
        return all(map(_imports_alone, statement.body))
    return isinstance(statement, (ast.Import, ast.ImportFrom))


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(module: str) -> bool:
    return module.split(".")[0] == "duodiff" and _file(module).exists()


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """The dotted names that the names an import binds stand for."""
    if isinstance(statement, ast.Import):
        return {
            a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
            for a in statement.names
        }
    return {a.asname or a.name: f"{statement.module}.{a.name}" for a in statement.names}


def _assigned(statement: ast.stmt) -> list[str]:
    """The names that an assignment at the top of a module defines."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return []
    nodes = [node for target in targets for node in ast.walk(target)]
    return [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text alone: a docstring, or the one below a constant or a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def _meaning(module: str, name: str, chosen: frozenset[str]) -> Meaning:
    """What the definition `name` of `module` means; all of a module's definitions for the name "*"."""
    return _read(module, name, chosen & _keys(module, name))


@cache
def _keys(module: str, name: str) -> frozenset[str]:
    """The keys of a definition that may be a table; none for others."""
    value = getattr(_source(module).definitions.get(name), "value", None)
    keys = value.keys if isinstance(value, ast.Dict) else []
    return frozenset(
        key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
    )


@cache
def _read(module: str, name: str, chosen: frozenset[str]) -> Meaning:
    """As `_meaning`, with the chosen entries of the definition itself."""
    source = _source(module)
    if name == "*":
        return Meaning("", tuple((module, one) for one in source.definitions))
    if module == "duodiff.protocol":
        return Meaning("")  # enters by the options that are read
    statements = source.effects if name == "" else [source.definitions[name.split(".")[0]]]
    reader = _Reader(source, chosen)
    text = "\n".join(_written(reader.read(statement)) for statement in statements)
    effects = {(module, "")} if source.effects else set()
    references = sorted((reader.references | effects) - {(module, name)})
    return Meaning(text, tuple(references), frozenset(reader.attributes))


_SAID_ELSEWHERE = {"ctx", "kind", "type_comment", "type_params"}


def _written(node: ast.AST | list | object) -> str:
    """A syntax tree as text, the same for every version of Python: without empty fields, unlike `ast.dump`."""
    if isinstance(node, list):
        return f"[{' '.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_written(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != [] and name not in _SAID_ELSEWHERE
    ]
    if isinstance(node, ast.Constant):  # None is a value here
        fields = [repr(node.value)]
    return f"({type(node).__name__} {' '.join(fields)})"


_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class _Reader(ast.NodeTransformer):
    """Brings a statement into normal form and notes what it refers to."""

    def __init__(self, source: Source, chosen: frozenset[str]):
        self.source, self.chosen = source, chosen
        self.references: set[Definition] = set()
        self.attributes: set[str] = set()
        self.local: list[set[str]] = []
        self.imports = [source.imports]

    def read(self, statement: ast.stmt) -> ast.AST:
        """The statement's normal form, a new tree."""
        copied = ast.parse(ast.unparse(statement)).body[0]
        if isinstance(copied, (ast.Assign, ast.AnnAssign)) and isinstance(copied.value, ast.Dict):
            self._keep_chosen(copied.value)
        return self.visit(copied)

    def _keep_chosen(self, table: ast.Dict) -> None:
        """Leaves the chosen entries of a table from texts to functions, classes or modules of this package.

        A table of which no entry is chosen stays whole: its keys are not those of parameters.
        """
        keys = [key.value if isinstance(key, ast.Constant) else None for key in table.keys]
        if not keys or not all(isinstance(key, str) for key in keys):
            return
        before = set(self.references)  # what the entries left out refer to is not followed
        tabled = all(isinstance(v, ast.Lambda) or self._target(v) for v in table.values)
        self.references = before
        if not tabled:
            return
        kept = [i for i, key in enumerate(keys) if key in self.chosen] or range(len(keys))
        table.keys = [table.keys[i] for i in kept]
        table.values = [table.values[i] for i in kept]

    # --- what is left out

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns, node.body = None, _without_texts(node.body)
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self._with_defaults(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_texts(node.body)
        for statement in node.body:
            if isinstance(
                statement, ast.AnnAssign
            ):  # a field: its name and default count, in their order
                statement.annotation, statement.simple = ast.Constant(None), -1
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.simple == -1:
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.visit(ast.Assign([node.target], node.value))

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        node.cause = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            owner = call.func.value
            if isinstance(owner, ast.Name) and owner.id == "log" and call.func.attr in _LOGS:
                return ast.Pass()
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self._full(node.func) == _SAME:
            return self.visit(node.args[0])
        return self.generic_visit(node)

    def _full(self, node: ast.AST) -> str | None:
        """The dotted name of what a module's import gives, with its attributes; None for other things."""
        first, _, rest = (_dotted(node) or "").partition(".")
        imported = self.source.imports.get(first)
        return f"{imported}.{rest}" if imported and rest else imported

    # --- what is followed

    def _in_own_scope(self, node: ast.AST) -> ast.AST:
        bound, imports = _bound(node)
        self.local.append(bound)
        self.imports.append(imports)
        self.generic_visit(node)
        self.local.pop()
        self.imports.pop()
        return node

    def _with_defaults(self, node: ast.FunctionDef | ast.Lambda) -> ast.AST:
        arguments = node.args  # whose defaults belong to the scope around
        defaults = [self.visit(value) for value in arguments.defaults]
        of_keywords = [value and self.visit(value) for value in arguments.kw_defaults]
        arguments.defaults, arguments.kw_defaults = [], []
        self._in_own_scope(node)
        arguments.defaults, arguments.kw_defaults = defaults, of_keywords
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._with_defaults(node)

    def _visit_comprehension(self, node: _Comprehension) -> ast.AST:
        first = node.generators[0]  # what it runs over belongs to the scope around
        iterable, first.iter = self.visit(first.iter), ast.Constant(None)
        self._in_own_scope(node)
        first.iter = iterable
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def visit_Name(self, node: ast.Name) -> ast.AST:
        target = self._target(node)
        return ast.Name(target, node.ctx) if target else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.attributes.add(node.attr)
        target = self._target(node)
        return ast.Name(target, node.ctx) if target else self.generic_visit(node)

    def _target(self, node: ast.AST) -> str | None:
        """What a name, with its attributes, stands for: a definition's own name, or another package's dotted name."""
        dotted = _dotted(node)
        if dotted is None:
            return None
        first, *rest = dotted.split(".")
        for bound, imports in zip(reversed(self.local), reversed(self.imports[1:]), strict=True):
            if first in imports:
                return self._followed(imports[first], rest)
            if first in bound:
                return None
        if first in self.source.definitions:
            self.references.add((self.source.module, first))
            return dotted
        if first in self.source.imports:
            return self._followed(self.source.imports[first], rest)
        return None

    def _followed(self, imported: str, rest: list[str]) -> str:
        full = ".".join([imported, *rest])
        if not full.startswith("duodiff."):
            return full
        module, names = imported, list(rest)
        while names and _exists(f"{module}.{names[0]}"):
            module = f"{module}.{names.pop(0)}"
        if not _exists(module):
            module, _, name = module.rpartition(".")
            names.insert(0, name)
        if module.startswith(_UNFOLLOWED):
            return ".".join(names) or module.rpartition(".")[2]
        if not names:
            self.references.add((module, "*"))
            return module.rpartition(".")[2]
        source = _source(module)
        if names[0] not in source.definitions and names[0] in source.imports:  # handed on
            return self._followed(source.imports[names[0]], names[1:])
        if names[0] in source.definitions:
            self.references.add((module, names[0]))
        return ".".join(names)


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return None


def _without_texts(body: list[ast.stmt]) -> list[ast.stmt]:
    return [statement for statement in body if not _is_text(statement)] or [ast.Pass()]


def _bound(function: ast.AST) -> tuple[set[str], dict[str, str]]:
    """The names that a function, lambda or comprehension binds: as its own, and by imports inside it.

    What a scope inside it binds is not bound here: the same name may be the module's.
    """
    own: set[str] = set()
    imports: dict[str, str] = {}
    for node in _in_scope(function):
        if isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports |= _imported(node)
    return own, imports


_SCOPES = (ast.FunctionDef, ast.ClassDef, ast.Lambda, *get_args(_Comprehension))


def _in_scope(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a function, without those of the scopes inside it."""
    pending = [*ast.iter_child_nodes(function)]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _SCOPES):
            pending += ast.iter_child_nodes(node)


def _protocol_options(chosen: frozenset[str], read: set[str]) -> dict[str, str]:
    """The options of the chosen protocols that the code reads, with their values as text."""
    options = {}
    for name, statement in _source("duodiff.protocol").definitions.items():
        call = getattr(statement, "value", None)
        if name.lower() in chosen and isinstance(call, ast.Call):
            for keyword in call.keywords:
                if keyword.arg in read and keyword.arg != "name":
                    options[f"{name.lower()}.{keyword.arg}"] = ast.unparse(keyword.value)
    return options
