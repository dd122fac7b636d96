"""Which code an artefact's maker reaches: what the artefact cache keys on in place of a hash of the whole package.

Source text is read, nothing is run. From the maker on, every name that a definition reads is followed to the definition
that binds it, through the imports of the clone's own packages, and counts as its syntax tree without comments,
docstrings, line numbers and place: a function that moves to another module stays the same. Names from outside the clone
count by name. A class counts as a whole, and so does one that only an annotation names (also under TYPE_CHECKING): that
is how the methods of an argument are reached. Statements at a module's top level that only act count as soon as a
definition of the module does. A constant that is a path inside a package counts with the data files below it: those are
the weights that the maker uses.

In a notebook the cells are followed in the order in which they ran. What a function reads is what its names hold when
the artefact is asked for, what an assignment reads is what they held then. Small unchangeable values (numbers, strings,
tuples and frozen records of them) count by their value; dicts, lists, tensors and models by the statements that made
and changed them, so that a dict which remembers what was computed is the same before and after.

Not seen:
- files and environment variables that a maker reads, and how the processor computes;
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

from sae_lib.cache.statements import DEFINITIONS, FUNCTIONS, Read, Statement, children, is_main, is_name, walk

_NOT_FOLLOWED = "sae_lib.cache"
"""The cache itself: it decides where an artefact lies, not what is in it."""
_DATA = (".safetensors", ".json", ".txt")


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
    """The definitions' names, as in "sae_lib.saes.topk:TopKSAE", in the order in which they were reached."""
    code: str
    """sha256 over the definitions and how they hang together."""
    weights: tuple[str, ...]
    """Data files, each as its sha256 and its path in the clone."""


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
    for path in (*package.rglob("*.py"), *package.rglob("*.pyi")):
        read_text(path)


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
        """Public names that the package loads when they are first used, with their modules, as its stub lists them."""
        stub = self.path.with_suffix(".pyi")
        lines = ast.parse(read_text(stub)).body if self.path.name == "__init__.py" and stub.is_file() else []
        return {name.name: f"{self.name}.{line.module}" for line in lines for name in line.names}

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
        for name in {child.id for child in walk(node.value) if is_name(child)} - {"__file__"}:
            binders = self.binders.get(name, [])
            if [binder.imports.get(name) for binder in binders] == ["pathlib.Path"]:
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
    """The statements that ran in a notebook before the artefact is asked for, and the values of its names now."""

    def __init__(self, cells: Sequence[str], values: Mapping[str, Any], line: int | None = None):
        """line: of the last cell's statement that is running; what comes after it has not happened."""
        ran = [statement for cell in cells[:-1] for statement in _cell(cell)]
        newest = _cell(cells[-1]) if cells else []
        begun = [statement for statement in newest if line is None or statement.node.lineno <= line]
        self.running = begun[-1:] if line is not None and begun and begun[-1].node.end_lineno >= line else []
        """The statement that asks for the artefact. Of a block, what stands before that line may have run."""
        ran += [statement for statement in begun if statement not in self.running or hasattr(statement.node, "body")]
        # A cell that ran twice counts as if it had run the last time only.
        last = {statement.text: statement for statement in ran}
        self.statements = list({last[statement.text]: None for statement in reversed(ran)})[::-1]
        self.values, self.acting = values, []
        self.places = {statement: place for place, statement in enumerate(self.statements)}
        self.binders: dict[str, list[Statement]] = {}
        for statement in self.statements:
            for name in statement.binds | statement.touches:
                self.binders.setdefault(name, []).append(statement)

    def place_of(self, read: Read, statement: Statement) -> int:
        return len(self.statements) if read.late else self.places[statement]

    def binders_of(self, read: Read, statement: Statement) -> list[Statement]:
        """The last statement that binds the name for sure, and those after it that change it or may bind it."""
        binders: list[Statement] = []
        place = self.place_of(read, statement)
        for binder in reversed(self.binders.get(read.chain[0], ())):
            if self.places[binder] < place:
                binders.insert(0, binder)
                if read.chain[0] in binder.binds:
                    break
        return binders

    def value_of(self, read: Read, statement: Statement) -> Any:
        """The small unchangeable value of the longest part of the chain that has one, or None.

        Wrapped in a tuple. A value that has been bound again since the statement ran is not the one that it read.
        """
        name, place = read.chain[0], self.place_of(read, statement)
        if name not in self.values or any(self.places[binder] >= place for binder in self.binders.get(name, ())):
            return None
        value, small = self.values[name], None
        for attribute in (*read.chain[1:], None):
            if spell(value) is not None:
                small = (value,)
            if attribute is None or not (_is_record(value) or _is_named_tuple(value)):
                break
            try:
                value = getattr(value, attribute)
            except Exception:  # noqa: BLE001 (if the maker reads it, it meets it too)
                break
        return small

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
        for part in value:
            yield from _classes(part)
    elif _is_record(value):
        for field in dataclasses.fields(value):
            yield from _classes(getattr(value, field.name))


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
                edges += map(str, self.numbered([(acting, source) for acting in source.acting], waiting))
            if path := source.path_of(statement):
                self.data(path)
            lines.append("\n".join([statement.dump, *edges]))
        code = hashlib.sha256("\n\n".join(lines).encode()).hexdigest()
        weights = tuple(f"{_sha256(path)} {name}" for name, path in sorted(self.files.items()))
        return Reached(tuple(reached.label for reached in waiting), code, weights)

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
            classes = [target for kind in _classes(value[0]) for target in self.class_targets(kind, source)]
            return [spell(value[0]), *classes]
        return self.bound_in(source, read, statement)

    def class_targets(self, kind: type, source: Module | Notebook) -> list:
        name = kind.__qualname__.split(".")[0]
        if kind.__module__ == "__main__":
            return [(binder, source) for binder in source.binders.get(name, ())]
        return self.locate((*kind.__module__.split("."), name))

    def bound_in(self, source: Module | Notebook, read: Read, statement: Statement) -> list:
        targets = []
        for binder in source.binders_of(read, statement):
            if target := binder.imports.get(read.chain[0]):
                targets += self.locate((*target.split("."), *read.chain[1:]))
            if not binder.only_imports:
                targets.append((binder, source))
        return targets

    def locate(self, parts: tuple[str, ...]) -> list:
        """What a dotted name means: definitions of the clone, or the name itself if it is from outside."""
        count, path = 0, None
        while count < len(parts) and (file := self.clone.find(".".join(parts[: count + 1]))):
            count, path = count + 1, file
        name = ".".join(parts[:count])
        if path is None or name.startswith(_NOT_FOLLOWED):
            return [".".join(parts)]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        module = _module(read_text(path), name, package, path)
        rest = parts[count:]
        if rest and rest[0] not in module.binders and rest[0] in module.lazy:
            return self.locate((*module.lazy[rest[0]].split("."), *rest))
        if rest and (rest[0] in module.binders or "__getattr__" not in module.binders):
            return self.bound_in(module, Read(rest, True), module.statements[0]) if module.statements else []
        return [
            (statement, module)
            for statement in module.statements
            if not statement.only_imports and not is_main(statement.node)
        ]

    def data(self, path: Path) -> None:
        """Takes down the data files of a path inside a package; hidden ones are no data: a killed process left them."""
        if self.clone.holds(path):
            for file in [path] if path.is_file() else path.rglob("*"):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if file.suffix in _DATA and file.is_file() and not hidden:
                    self.files[file.relative_to(self.clone.root).as_posix()] = file

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
            f"the source of {function.__qualname__!r}, which makes an artefact, cannot be read: "
            "define it in a file or in a cell"
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
    for inner in children(node) if not isinstance(node, (*DEFINITIONS, ast.Lambda)) else ():
        yield from _around(inner, code)
    if isinstance(node, (*DEFINITIONS, ast.Lambda)) and any(_is_of(child, code) for child in walk(node)):
        yield node


def _is_of(node: ast.AST, code: CodeType) -> bool:
    if not isinstance(node, (*FUNCTIONS, ast.Lambda)) or getattr(node, "name", "<lambda>") != code.co_name:
        return False
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
    return code.co_firstlineno == first and [*code.co_varnames[: code.co_argcount]] == names


def _ran_in(code: CodeType, statement: Statement) -> bool:
    """Whether the code may be from this statement's cell: IPython keeps the text of every cell under its own name."""
    text = _text(code)
    return not text or statement.text in text


def _text(code: CodeType) -> str:
    return "".join(linecache.getlines(code.co_filename)).rstrip()


def _running(values: Mapping[str, Any]) -> FrameType | None:
    """The frame of the notebook's running cell, from which this process came here."""
    frame, cell = inspect.currentframe(), None
    while frame:
        if frame.f_globals is values and frame.f_locals is values:
            cell = frame
        frame = frame.f_back
    return cell


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
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
