"""One top-level statement of Python: which names it binds, reads and changes."""

import ast
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IMPORTS = (ast.Import, ast.ImportFrom)

Names = dict[str, str | None]
"""Names that some statements bind: the dotted name that an import gives them, or None."""


class Read(NamedTuple):
    """A name that a statement reads, with the attributes taken of it."""

    chain: tuple[str, ...]
    late: bool
    """Whether it is read when a function runs, not when the statement does."""
    imported: bool = False
    """Whether the chain is a dotted name that the statement itself imports."""


class Statement:
    """A statement at the top level of a module or of a notebook's cell."""

    def __init__(self, node: ast.AST, module: str, package: str, lines: Sequence[str] = ()):
        self.node, self.module, self.package = node, module, package
        self.text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) if lines else ""
        bound, inner = bound_names([node], package), list(_inner(node))
        self.imports = {name: target for name, target in bound.items() if target}
        self.only_imports = all(isinstance(part, _IMPORTS) or _is_docstring(part) for part in inner) and bool(bound)
        whole = isinstance(node, (*DEFINITIONS, *_IMPORTS, ast.Assign)) or (
            isinstance(node, ast.AnnAssign) and node.value is not None
        )
        self.binds = set(bound) if whole else set()
        self.touches = (set(bound) | {name for part in inner for name in _changed(part)}) - self.binds
        self.acts = not is_main(node) and any(map(_acts, inner))

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
        return tuple(reader.collected)


def bound_names(nodes: Iterable[ast.AST], package: str) -> Names:
    """Names that these nodes bind in their own scope."""
    names, elsewhere = {}, set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _IMPORTS):
            names |= _imported(node, package)
        elif isinstance(node, DEFINITIONS):
            names.setdefault(node.name, None)
        elif isinstance(node, _COMPREHENSIONS):
            names |= {child.target.id: None for child in walk(node) if isinstance(child, ast.NamedExpr)}
        elif isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
        elif not isinstance(node, ast.Lambda):
            if name := _stored(node):
                names.setdefault(name, None)
            waiting += children(node)
    return {name: target for name, target in names.items() if name not in elsewhere}


def children(node: ast.AST) -> Iterator[ast.AST]:
    for value in vars(node).values():
        if isinstance(value, ast.AST):
            yield value
        elif type(value) is list:
            yield from (child for child in value if isinstance(child, ast.AST))


def walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in children(node):
        yield from walk(child)


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> Names:
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.split(".")[0]: _target(alias) for alias in node.names}
    start = package.rsplit(".", node.level - 1)[0] if node.level else ""
    origin = ".".join(filter(None, (start, node.module)))
    return {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}


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
    if isinstance(node, DEFINITIONS) or not (
        isinstance(node, ast.Match) or isinstance(getattr(node, "body", None), list)
    ):
        yield node
        return
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, name, ()):
            yield from _inner(child)


def _changed(node: ast.AST) -> Iterator[str]:
    """Names whose objects a simple statement changes: `x[...] = `, `x.y = `, `x += `, `del x[...]`, `x.append(...)`."""
    match node:
        case ast.Assign() | ast.Delete():
            changed = [child for target in node.targets for child in walk(target) if _is_part(child)]
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
        return any(_is_part(child) for target in targets for child in walk(target))
    return not isinstance(node, (*DEFINITIONS, *_IMPORTS, ast.Pass, ast.Lambda)) and not _is_docstring(node)


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in {child.id for child in walk(node.test) if is_name(child)}


def is_name(node: ast.AST) -> bool:
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
        for child in node:
            if not isinstance(child, _IMPORTS) and not _is_docstring(child):
                _dump(child, parts)
                parts.append(",")
    else:
        parts.append(repr(node))


class _Reader(ast.NodeVisitor):
    """Collects the reads of a statement: names that neither it nor one of its functions binds before."""

    def __init__(self, package: str):
        self.package = package
        self.collected: dict[Read, None] = {}
        self.scopes: list[Names] = []
        """What the functions around bind."""
        self.bound: Names = {}
        """What the statement itself has surely bound so far."""
        self.late = self.annotating = False

    def read(self, chain: tuple[str, ...]) -> None:
        scopes = [*self.scopes[::-1], *([] if self.late else [self.bound])]
        scope = next((names for names in scopes if chain[0] in names), None)
        if scope is None:
            self.collected[Read(chain, self.late)] = None
        elif target := scope[chain[0]]:
            self.collected[Read((*target.split("."), *chain[1:]), self.late, True)] = None

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
        self.visit_all(node.value, node.target)

    def visit_Assign(self, node):
        self.visit_all(node.value, *node.targets)

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name):
            self.read((node.target.id,))
        self.visit_all(node.value, node.target)

    def visit_Global(self, node):
        for name in node.names:
            self.read((name,))

    def visit_NamedExpr(self, node):
        self.visit_all(node.value, node.target)

    def visit_all(self, *nodes):
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_FunctionDef(self, node):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        self.visit_all(*node.decorator_list, *arguments.defaults, *arguments.kw_defaults)
        for argument in filter(None, every):
            self.annotation(argument.annotation)
        self.annotation(node.returns)
        self.function([arguments, *node.body], node.body)
        if not self.late:
            self.bound[node.name] = None

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        self.visit_all(*node.args.defaults, *node.args.kw_defaults)
        self.function([node.args, node.body], [node.body])

    def function(self, nodes, body):
        self.scopes.append(bound_names(nodes, self.package))
        late, self.late = self.late, True
        self.visit_all(*body)
        self.late = late
        self.scopes.pop()

    def comprehension(self, node):
        first = node.generators[0].iter
        self.visit(first)
        self.scopes.append(bound_names([generator.target for generator in node.generators], self.package))
        for generator in node.generators:
            self.visit_all(*([] if generator.iter is first else [generator.iter]), *generator.ifs)
        self.visit_all(*([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]))
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_ClassDef(self, node):
        self.visit_all(*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords))
        self.branches(node.body)
        if not self.late:
            self.bound[node.name] = None

    def branches(self, *bodies):
        """Blocks of which each may run or not: what one binds is not surely bound in the next, or after it."""
        before, bound = self.bound, []
        for body in bodies:
            self.bound = dict(before)
            self.visit_all(*body)
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
        self.branches([*node.body, *node.orelse], *([handler] for handler in node.handlers), node.finalbody)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node):
        if node.name and not self.late:
            self.bound[node.name] = None
        self.visit_all(node.type, *node.body)

    def visit_Match(self, node):
        self.visit(node.subject)
        self.branches(*([case.pattern, case.guard, *case.body] for case in node.cases))

    def visit_MatchAs(self, node):
        if node.name and not self.late:
            self.bound[node.name] = None
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs
