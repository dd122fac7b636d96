"""Which code an artefact's maker reaches: what the artefact cache keys on in place of a hash of the whole package.

Source text is read, nothing is run. From the maker on, every name that a definition reads is followed to the definition
that binds it, through the imports of the clone's own packages, and counts as its syntax tree without comments,
docstrings, line numbers and place: a function that moves to another module stays the same. Names from outside the clone
count by name. A class counts as a whole, and so does one that only an annotation names (also under TYPE_CHECKING): that
is how the methods of an argument are found. Statements at a module's top level that only act count as soon as a
definition of the module does. A constant that is a path inside a package counts with the data files below it: those are
the weights that the maker uses.

In a notebook the cells are followed in the order in which they ran. What a function reads is what its names hold when
the artefact is asked for, what an assignment reads is what they held then. Small unchangeable values (numbers, strings,
tuples and frozen records of them) count by their value; dicts, lists, tensors and models by the statements that made and
changed them, so that a dict which remembers what was computed is the same before and after.

Not seen:
- files and environment variables that a maker reads, and what the processor does;
- methods of an object whose class no reached line names;
- functions and values that a library function gets from its caller (they must show in the artefact's inputs);
- of a notebook: changes of an object inside a call that is handed it, such as `shuffle(rows)`, and a generator's state;
- text that changes after a process has read it: a session goes on with the library that it began with.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import inspect
import linecache
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

LAZY_EXPORTS = "_MODULE_OF"
"""Name of the table from which a package loads its public names when they are first used."""
_NOT_FOLLOWED = ("sae_lib.store", "sae_lib.reach")
"""The cache itself: it decides where an artefact lies, not what is in it."""
_DATA = (".safetensors", ".json", ".txt")

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IMPORTS = (ast.Import, ast.ImportFrom)

Names = dict[str, str | None]
"""Names that some statements bind: the dotted name that an import gives them, or None."""


class Clone(NamedTuple):
    """The packages whose code is followed."""

    root: Path
    packages: tuple[str, ...]

    def find(self, module: str) -> Path | None:
        """The file of a module of these packages; of a package its `__init__.py`, whether it has one or not."""
        return _find(self, module) if module.split(".")[0] in self.packages else None

    def holds(self, path: Path) -> bool:
        """Whether a path lies inside a package; a package itself and what is above it do not."""
        return any(self.root / package in path.parents for package in self.packages)


class Reached(NamedTuple):
    """What a maker reaches."""

    names: tuple[str, ...]
    """Of the definitions, as in "sae_lib.sae:TopKSAE", in the order in which they were reached."""
    code: str
    """sha256 over the definitions and how they hang together."""
    weights: tuple[str, ...]
    """Data files, each as its sha256 and its path in the clone."""


class Read(NamedTuple):
    """A name that a statement reads, with the attributes taken of it."""

    chain: tuple[str, ...]
    late: bool
    """Whether it is read when a function runs, not when the statement does."""
    imported: bool = False
    """Whether the chain is a dotted name that the statement itself imports."""


@functools.cache
def _find(clone: Clone, module: str) -> Path | None:
    path = clone.root.joinpath(*module.split("."))
    package, file = path / "__init__.py", path.with_name(f"{path.name}.py")
    if file.is_file() and not package.is_file():  # a folder of data beside it may have its name
        return file
    return package if path.is_dir() else None


@functools.cache
def read_text(path: Path) -> str:
    """Source text of a module as it was when this process first asked for it; empty for a package without a file."""
    return path.read_text(encoding="utf-8") if path.name != "__init__.py" or path.is_file() else ""


def remember(package: Path) -> None:
    """Read the text of a whole package now, so that what is edited later is not taken for what this process runs."""
    for path in package.rglob("*.py"):
        read_text(path)


# Statements -----------------------------------------------------------------------------------------------------------


class Statement:
    """A statement at the top level of a module or of a notebook's cell."""

    def __init__(self, node: ast.AST, module: str, package: str, lines: Sequence[str] = ()):
        self.node, self.module, self.package = node, module, package
        self.text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) if lines else ""
        bound, inner = bound_names([node], package), list(_inner(node))
        self.imports = {name: target for name, target in bound.items() if target}
        self.only_imports = all(isinstance(each, _IMPORTS) or _is_docstring(each) for each in inner) and bool(bound)
        whole = isinstance(node, (*_DEFINITIONS, *_IMPORTS, ast.Assign)) or (
            isinstance(node, ast.AnnAssign) and node.value is not None
        )
        self.binds = set(bound) if whole else set()
        self.touches = (set(bound) | {name for each in inner for name in _changed(each)}) - self.binds
        self.acts = not _is_main(node) and any(map(_acts, inner))

    @property
    def label(self) -> str:
        """For people: the module and what the statement defines."""
        return f"{self.module}:{', '.join(sorted(self.binds or self.touches)) or type(self.node).__name__}"

    @functools.cached_property
    def dump(self) -> str:
        """The syntax tree without docstrings, imports and places, the same for Python 3.11 and 3.12."""
        parts: list[str] = []
        _dump(self.node, parts)
        return " ".join(parts)

    @functools.cached_property
    def reads(self) -> tuple[Read, ...]:
        """What it reads from outside itself, in the order of the text."""
        reader = _Reader(self.package)
        reader.visit(self.node)
        return tuple(reader.found)


def bound_names(nodes: Iterable[ast.AST], package: str) -> Names:
    """Names that these nodes bind in their own scope."""
    names, elsewhere = {}, set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _IMPORTS):
            names |= _imported(node, package)
        elif isinstance(node, _DEFINITIONS):
            names.setdefault(node.name, None)
        elif isinstance(node, _COMPREHENSIONS):
            names |= {each.target.id: None for each in _walk(node) if isinstance(each, ast.NamedExpr)}
        elif isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
        elif not isinstance(node, ast.Lambda):
            if name := _stored(node):
                names.setdefault(name, None)
            waiting += _children(node)
    return {name: target for name, target in names.items() if name not in elsewhere}


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for value in vars(node).values():
        if isinstance(value, ast.AST):
            yield value
        elif type(value) is list:
            yield from (each for each in value if isinstance(each, ast.AST))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for each in _children(node):
        yield from _walk(each)


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> Names:
    if isinstance(node, ast.Import):
        return {each.asname or each.name.split(".")[0]: _target(each) for each in node.names}
    start = package.rsplit(".", node.level - 1)[0] if node.level else ""
    origin = ".".join(filter(None, (start, node.module)))
    return {each.asname or each.name: f"{origin}.{each.name}" for each in node.names}


def _target(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.split(".")[0]


def _stored(node: ast.AST) -> str | None:
    kind = type(node)
    if kind is ast.Name:
        return None if isinstance(node.ctx, ast.Load) else node.id
    if kind in (ast.ExceptHandler, ast.MatchAs, ast.MatchStar):
        return node.name
    if kind is ast.MatchMapping:
        return node.rest
    return node.arg if kind is ast.arg else None


def _inner(node: ast.AST) -> Iterator[ast.AST]:
    """The simple statements in a statement, those of functions and classes left out."""
    if isinstance(node, _DEFINITIONS) or not (
        isinstance(node, ast.Match) or isinstance(getattr(node, "body", None), list)
    ):
        yield node
        return
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for each in getattr(node, name, ()):
            yield from _inner(each)


def _changed(node: ast.AST) -> Iterator[str]:
    """Names whose objects a simple statement changes: `x[...] = `, `x.y = `, `x += `, `del x[...]`, `x.append(...)`."""
    match node:
        case ast.Assign() | ast.Delete():
            changed = [each for target in node.targets for each in _walk(target) if _is_part(each)]
        case ast.AugAssign() | ast.AnnAssign():
            changed = [node.target]
        case ast.Expr(value=ast.Call(func=ast.Attribute())):
            changed = [node.value]
        case _:
            changed = []
    yield from filter(None, map(_base, changed))


def _is_part(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load)


def _base(node: ast.AST) -> str | None:
    """The name that a chain of attributes, items and method calls begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            return None
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _acts(node: ast.AST) -> bool:
    """Whether a simple statement is no binding, import or docstring."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(_is_part(each) for target in targets for each in _walk(target))
    return not isinstance(node, (*_DEFINITIONS, *_IMPORTS, ast.Pass, ast.Lambda)) and not _is_docstring(node)


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in {each.id for each in _walk(node.test) if _is_name(each)}


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _dump(node: Any, parts: list[str]) -> None:
    if isinstance(node, ast.AST):
        parts.append(type(node).__name__)
        for field, value in zip(node._fields, map(vars(node).get, node._fields), strict=True):
            if value is not None and value != [] and field not in ("ctx", "kind", "type_comment"):
                parts.append(field)
                _dump(value, parts)
        parts.append(")")
    elif type(node) is list:
        for each in node:
            if not isinstance(each, _IMPORTS) and not _is_docstring(each):
                _dump(each, parts)
                parts.append(",")
    else:
        parts.append(repr(node))


class _Reader(ast.NodeVisitor):
    """Collects the reads of a statement: names that neither it nor one of its functions binds before."""

    def __init__(self, package: str):
        self.package = package
        self.found: dict[Read, None] = {}
        self.scopes: list[Names] = []
        """What the functions around bind."""
        self.bound: Names = {}
        """What the statement itself has surely bound so far."""
        self.late = self.annotating = False

    def read(self, chain: tuple[str, ...]) -> None:
        scopes = [*self.scopes[::-1], *([] if self.late else [self.bound])]
        scope = next((each for each in scopes if chain[0] in each), None)
        if scope is None:
            self.found[Read(chain, self.late)] = None
        elif target := scope[chain[0]]:
            self.found[Read((*target.split("."), *chain[1:]), self.late, True)] = None

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.read((node.id,))
        elif not self.late:
            self.bound[node.id] = None

    def visit_Attribute(self, node):
        chain, inner = [node.attr] if isinstance(node.ctx, ast.Load) else [], node.value
        while isinstance(inner, ast.Attribute):
            chain, inner = [inner.attr, *chain], inner.value
        if isinstance(inner, ast.Name):
            self.read((inner.id, *chain))
        else:
            self.visit(inner)

    def visit_Constant(self, node):
        if self.annotating and isinstance(node.value, str):
            try:
                self.visit(ast.parse(node.value.strip(), mode="eval").body)
            except SyntaxError:
                pass  # jaxtyping's shapes are strings that are no Python

    def visit_Import(self, node):
        if not self.late:
            self.bound |= bound_names([node], self.package)

    visit_ImportFrom = visit_Import

    def annotation(self, node):
        if node is not None:
            self.annotating = True
            self.visit(node)
            self.annotating = False

    def visit_AnnAssign(self, node):
        self.annotation(node.annotation)
        self.each(node.value, node.target)

    def visit_Assign(self, node):
        self.each(node.value, *node.targets)

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name):
            self.read((node.target.id,))
        self.each(node.value, node.target)

    def visit_Global(self, node):
        for name in node.names:
            self.read((name,))

    def visit_NamedExpr(self, node):
        self.each(node.value, node.target)

    def each(self, *nodes):
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_FunctionDef(self, node):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        self.each(*node.decorator_list, *arguments.defaults, *arguments.kw_defaults)
        for argument in filter(None, every):
            self.annotation(argument.annotation)
        self.annotation(node.returns)
        self.function([arguments, *node.body], node.body)
        if not self.late:
            self.bound[node.name] = None

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        self.each(*node.args.defaults, *node.args.kw_defaults)
        self.function([node.args, node.body], [node.body])

    def function(self, nodes, body):
        self.scopes.append(bound_names(nodes, self.package))
        late, self.late = self.late, True
        self.each(*body)
        self.late = late
        self.scopes.pop()

    def comprehension(self, node):
        first = node.generators[0].iter
        self.visit(first)
        self.scopes.append(bound_names([each.target for each in node.generators], self.package))
        for generator in node.generators:
            self.each(*([] if generator.iter is first else [generator.iter]), *generator.ifs)
        self.each(*([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]))
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_ClassDef(self, node):
        self.each(*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords))
        self.branches(node.body)
        if not self.late:
            self.bound[node.name] = None

    def branches(self, *bodies):
        """Blocks of which each may run or not: what one binds is not surely bound in the next, or after it."""
        before, bound = self.bound, []
        for body in bodies:
            self.bound = dict(before)
            self.each(*body)
            bound.append(self.bound)
        self.bound = before
        return bound

    def visit_If(self, node):
        self.visit(node.test)
        first, second = self.branches(node.body, node.orelse)
        self.bound = {name: target for name, target in first.items() if name in second}

    def visit_For(self, node):
        self.visit(node.iter)
        self.branches([node.target, *node.body], node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node):
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_Try(self, node):
        self.branches([*node.body, *node.orelse], *([each] for each in node.handlers), node.finalbody)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node):
        if node.name and not self.late:
            self.bound[node.name] = None
        self.each(node.type, *node.body)

    def visit_Match(self, node):
        self.visit(node.subject)
        self.branches(*([case.pattern, case.guard, *case.body] for case in node.cases))

    def visit_MatchAs(self, node):
        if node.name and not self.late:
            self.bound[node.name] = None
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs


# Sources --------------------------------------------------------------------------------------------------------------


class Module:
    """The top-level statements of a file, and what each name in it is bound by."""

    def __init__(self, text: str, name: str, package: str, path: Path):
        self.name, self.path = name, path
        self.statements = [Statement(node, name, package) for node in ast.parse(text).body]
        self.binders: dict[str, list[Statement]] = {}
        for statement in self.statements:
            for bound in statement.binds | statement.touches:
                self.binders.setdefault(bound, []).append(statement)
        self.acting = [statement for statement in self.statements if statement.acts]
        self.running: list[Statement] = []

    @functools.cached_property
    def lazy(self) -> dict[str, str]:
        """Public names that the package loads when they are first used, and their modules."""
        tables = [each.node.value for each in self.binders.get(LAZY_EXPORTS, ())]
        return {name: f"{self.name}.{module}" for table in tables for name, module in ast.literal_eval(table).items()}

    def binders_of(self, read: Read, statement: Statement) -> list[Statement]:
        """Statements that bind the name."""
        return self.binders.get(read.chain[0], [])

    def value_of(self, read: Read, statement: Statement) -> None:
        """Nothing: a module's constants count by the statements that bind them."""

    def path_of(self, statement: Statement) -> Path | None:
        """The path that a constant is, if it is made of `Path`, `__file__` and other such constants."""
        node = statement.node
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            return None
        known: dict[str, Any] = {"__file__": str(self.path), "__builtins__": {}}
        for name in {each.id for each in _walk(node.value) if _is_name(each)} - {"__file__"}:
            binders = self.binders.get(name, [])
            if [each.imports.get(name) for each in binders] == ["pathlib.Path"]:
                known[name] = Path
            elif len(binders) != 1 or binders[0] is statement or (value := self.path_of(binders[0])) is None:
                return None
            else:
                known[name] = value
        if len(known) == 2 and "__file__" not in ast.dump(node.value):
            return None
        try:
            value = eval(compile(ast.Expression(node.value), "<constant>", "eval"), known)
        except Exception:  # noqa: BLE001 (whatever it is, it is no path)
            return None
        return value if isinstance(value, Path) else None


@functools.cache
def _module(text: str, name: str, package: str, path: Path) -> Module:
    return Module(text, name, package, path)


@functools.cache
def _cell(text: str) -> list[Statement]:
    """Statements of a cell; none of one that is no Python, which cannot have run."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    lines = text.splitlines()
    return [Statement(node, "notebook", "", lines) for node in tree.body]


class Notebook:
    """The statements of a notebook's cells that ran before the artefact is asked for, and the values of its names now."""

    def __init__(self, cells: Sequence[str], values: Mapping[str, Any], line: int | None = None):
        """line: of the last cell's statement that is running; what comes after it has not happened."""
        ran = [each for cell in cells[:-1] for each in _cell(cell)]
        begun = [each for each in _cell(cells[-1]) if line is None or each.node.lineno <= line] if cells else []
        self.running = begun[-1:] if line is not None and begun and begun[-1].node.end_lineno >= line else []
        """The statement that asks for the artefact: of a block what came before may have happened, else nothing of it."""
        ran += [each for each in begun if each not in self.running or hasattr(each.node, "body")]
        last = {each.text: each for each in ran}  # a cell that ran twice counts as if it had run the last time only
        self.statements = list({last[each.text]: None for each in reversed(ran)})[::-1]
        self.values, self.acting = values, []
        self.places = {each: place for place, each in enumerate(self.statements)}
        self.binders: dict[str, list[Statement]] = {}
        for each in self.statements:
            for name in each.binds | each.touches:
                self.binders.setdefault(name, []).append(each)

    def place_of(self, read: Read, statement: Statement) -> int:
        return len(self.statements) if read.late else self.places[statement]

    def binders_of(self, read: Read, statement: Statement) -> list[Statement]:
        """The last statement that binds the name for sure, and those after it that change it or may bind it."""
        found: list[Statement] = []
        place = self.place_of(read, statement)
        for each in reversed(self.binders.get(read.chain[0], ())):
            if self.places[each] < place:
                found.insert(0, each)
                if read.chain[0] in each.binds:
                    break
        return found

    def value_of(self, read: Read, statement: Statement) -> Any:
        """The small unchangeable value of the longest part of the chain that has one, or None.

        Wrapped in a tuple. A value that has been bound again since the statement ran is not the one that it read.
        """
        name, place = read.chain[0], self.place_of(read, statement)
        if name not in self.values or any(self.places[each] >= place for each in self.binders.get(name, ())):
            return None
        value, found = self.values[name], None
        for attribute in (*read.chain[1:], None):
            if spell(value) is not None:
                found = (value,)
            if attribute is None or not (_is_record(value) or _is_named_tuple(value)):
                break
            try:
                value = getattr(value, attribute)
            except Exception:  # noqa: BLE001 (if the maker reads it, it meets it too)
                break
        return found

    def path_of(self, statement: Statement) -> None:
        """Nothing: a notebook's paths count by the statements that bind them."""


def spell(value: Any) -> str | None:
    """A small unchangeable value as text that is the same in every process; None of any other."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if type(value) is tuple or _is_named_tuple(value):
        parts = [*map(spell, value)]
    elif _is_record(value):
        parts = [spell(getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        return None
    return None if None in parts else f"{type(value).__qualname__}({', '.join(parts)})"


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_record(value: Any) -> bool:
    kind = type(value)
    return dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen


def _classes(value: Any) -> Iterator[type]:
    """The classes of a value and of its parts."""
    if isinstance(value, enum.Enum) or _is_named_tuple(value) or _is_record(value):
        yield type(value)
    if isinstance(value, tuple):
        for each in value:
            yield from _classes(each)
    elif _is_record(value):
        for field in dataclasses.fields(value):
            yield from _classes(getattr(value, field.name))


# From the maker on ----------------------------------------------------------------------------------------------------


def follow(make: Callable, clone: Clone) -> Reached:
    """What a maker reaches.

    Raises TypeError for what is no function of Python, and ValueError if its source cannot be read.
    """
    return _Walk(clone).follow(make)


class _Walk:
    def __init__(self, clone: Clone):
        self.clone = clone
        self.sources: dict[Statement, Module | Notebook] = {}
        self.numbers: dict[Statement, int] = {}
        self.files: dict[str, Path] = {}

    def follow(self, make: Callable) -> Reached:
        root, source = self.root_of(make)
        self.sources[root], self.numbers[root] = source, 0
        waiting, lines, seen = [root], [], set()
        for statement in waiting:  # it grows
            source = self.sources[statement]
            edges = []
            for read in statement.reads:
                targets = self.targets(read, statement, source)
                edges.append(f"{read.chain[-1]}: {', '.join(map(str, self.numbered(targets, waiting)))}")
            if source not in seen:
                seen.add(source)
                edges += map(str, self.numbered([(each, source) for each in source.acting], waiting))
            if path := source.path_of(statement):
                self.data(path)
            lines.append("\n".join([statement.dump, *edges]))
        code = hashlib.sha256("\n\n".join(lines).encode()).hexdigest()
        weights = tuple(f"{_sha256(path)} {name}" for name, path in sorted(self.files.items()))
        return Reached(tuple(each.label for each in waiting), code, weights)

    def numbered(self, targets: Iterable, waiting: list[Statement]) -> Iterator[int | str]:
        """Statements as their numbers, new ones put in the queue; names from outside and values as they are."""
        for target in targets:
            if isinstance(target, str):
                yield target
                continue
            statement, source = target
            if statement not in self.numbers:
                self.numbers[statement], self.sources[statement] = len(waiting), source
                waiting.append(statement)
            yield self.numbers[statement]

    def targets(self, read: Read, statement: Statement, source: Module | Notebook) -> list:
        """What a read means: pairs of statement and source, and texts for what is not followed."""
        if read.imported:
            return self.locate(read.chain)
        if (value := source.value_of(read, statement)) is not None:
            classes = [each for kind in _classes(value[0]) for each in self.class_targets(kind, source)]
            return [spell(value[0]), *classes]
        return self.bound_in(source, read, statement)

    def class_targets(self, kind: type, source: Module | Notebook) -> list:
        name = kind.__qualname__.split(".")[0]
        if kind.__module__ == "__main__":
            return [(each, source) for each in source.binders.get(name, ())]
        return self.locate((*kind.__module__.split("."), name))

    def bound_in(self, source: Module | Notebook, read: Read, statement: Statement) -> list:
        found = []
        for each in source.binders_of(read, statement):
            if target := each.imports.get(read.chain[0]):
                found += self.locate((*target.split("."), *read.chain[1:]))
            if not each.only_imports:
                found.append((each, source))
        return found

    def locate(self, parts: tuple[str, ...]) -> list:
        """What a dotted name means: definitions of the clone, or the name itself if it is from outside."""
        count, path = 0, None
        while count < len(parts) and (found := self.clone.find(".".join(parts[: count + 1]))):
            count, path = count + 1, found
        name = ".".join(parts[:count])
        if path is None or name in _NOT_FOLLOWED:
            return [".".join(parts)]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        module = _module(read_text(path), name, package, path)
        rest = parts[count:]
        if rest and rest[0] not in module.binders and rest[0] in module.lazy:
            return self.locate((*module.lazy[rest[0]].split("."), *rest))
        if rest and (rest[0] in module.binders or "__getattr__" not in module.binders):
            return self.bound_in(module, Read(rest, True), module.statements[0]) if module.statements else []
        return [(each, module) for each in module.statements if not each.only_imports and not _is_main(each.node)]

    def data(self, path: Path) -> None:
        """Takes down the data files of a path inside a package."""
        if self.clone.holds(path):
            for each in [path] if path.is_file() else path.rglob("*"):
                if each.suffix in _DATA and each.is_file():
                    self.files[each.relative_to(self.clone.root).as_posix()] = each

    def root_of(self, make: Callable) -> tuple[Statement, Module | Notebook]:
        """The outermost definition around the maker, or the lambda that it is, and where it stands."""
        function = make
        while isinstance(function, functools.partial):
            function = function.func
        function = inspect.unwrap(getattr(function, "__func__", function))
        if isinstance(function, functools.partial) or not isinstance(getattr(function, "__code__", None), CodeType):
            raise TypeError(f"{make!r} makes an artefact and has no source: wanted a function, a lambda or a method")
        source = self.source_of(function)
        for statement in [*source.running, *reversed(source.statements)] if source else ():
            if not statement.text or _ran_in(function.__code__, statement):
                for node in _around(statement.node, function.__code__):
                    if node is statement.node:
                        return statement, source
                    root = Statement(node, statement.module, statement.package)
                    if isinstance(source, Notebook):
                        source.places[root] = source.places.get(statement, len(source.statements))
                    return root, source
        raise ValueError(
            f"the source of {function.__qualname__!r}, which makes an artefact, cannot be read: define it in a file or in a cell"
        )

    def source_of(self, function: Callable) -> Module | Notebook | None:
        values = function.__globals__
        if values.get("__name__") == "__main__" and "In" in values:
            running = _running(values)
            return Notebook(_cells(values, function.__code__, running), values, running and running.f_lineno)
        if not (file := values.get("__file__")) or not Path(file).is_file():
            return None
        path, name = Path(file).resolve(), values["__name__"]
        package = values.get("__package__") or (name if path.name == "__init__.py" else name.rpartition(".")[0])
        return _module(read_text(path), name, package, path)


def _around(node: ast.AST, code: CodeType) -> Iterator[ast.AST]:
    """The outermost definitions or lambdas in a statement that hold the function of this code, or are it."""
    for inner in _children(node) if not isinstance(node, (*_DEFINITIONS, ast.Lambda)) else ():
        yield from _around(inner, code)
    if isinstance(node, (*_DEFINITIONS, ast.Lambda)) and any(_is_of(each, code) for each in _walk(node)):
        yield node


def _is_of(node: ast.AST, code: CodeType) -> bool:
    if not isinstance(node, (*_FUNCTIONS, ast.Lambda)) or getattr(node, "name", "<lambda>") != code.co_name:
        return False
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    first = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
    return code.co_firstlineno == first and [*code.co_varnames[: code.co_argcount]] == names


def _ran_in(code: CodeType, statement: Statement) -> bool:
    """Whether the code may be from this statement's cell: IPython keeps the text of each cell by a name of its own."""
    text = _text(code)
    return not text or statement.text in text


def _text(code: CodeType) -> str:
    return "".join(linecache.getlines(code.co_filename)).rstrip()


def _running(values: Mapping[str, Any]) -> FrameType | None:
    """The frame of the notebook's running cell, from which this process came here."""
    frame, found = inspect.currentframe(), None
    while frame:
        if frame.f_globals is values and frame.f_locals is values:
            found = frame
        frame = frame.f_back
    return found


def _cells(values: Mapping[str, Any], code: CodeType, running: FrameType | None) -> list[str]:
    """The cells that ran, the running one last.

    They are IPython's history. A runner that keeps none (nbval) leaves the texts that IPython holds for tracebacks, in
    the order of their first run.
    """
    cells = [cell.rstrip() for cell in values["In"]]
    if (text := _text(code)) and text not in cells:
        folder = Path(code.co_filename).parent
        cells = [
            "".join(linecache.getlines(name)).rstrip() for name in [*linecache.cache] if Path(name).parent == folder
        ]
    now = _text(running.f_code) if running else ""
    return cells if not now or cells[-1:] == [now] else [*(cell for cell in cells if cell != now), now]


def _sha256(path: Path) -> str:
    told = path.stat()
    return _sha256_of(path, told.st_size, told.st_mtime_ns)


@functools.cache
def _sha256_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
