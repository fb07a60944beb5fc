"""The changes that mutation testing makes to a module, one place at a time.

Left out are the words of messages, which pure/bad and the manual hold to the letter, annotations,
decorators (frozen and slots guard the code, not its outcome), and the sizes of memos.
"""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr}
_TESTED = (ast.Name, ast.Attribute, ast.Call)
_WORDS = (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)
_SCOPES = (ast.FunctionDef, ast.ClassDef)
_UNTOUCHED = frozenset({"annotation", "returns", "decorator_list"})


class Place(NamedTuple):
    """Where a node stands: in which function, and where in the one above it."""

    scope: tuple[str, ...]
    line: int | None  # the first of the innermost function, None outside
    statement: ast.stmt
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        """Set a node in this place."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


class Mutant(NamedTuple):
    """One change: in which function, the line before and after, and the changed module."""

    function: str
    line: int | None
    before: str
    after: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Yield the changes of a module; the tree of each is good until the next is asked for."""
    tree = ast.parse(source)
    for node, place in list(_places(tree, (), None, None)):
        for change in _changes(node, place):
            before = ast.unparse(place.statement).splitlines()
            place.put(ast.fix_missing_locations(ast.copy_location(change, node)))
            deleted = node is place.statement
            after = ast.unparse(change if deleted else place.statement).splitlines()
            pairs = zip(before, after, strict=False)
            old, new = next((pair for pair in pairs if pair[0] != pair[1]), (before[0], after[0]))
            name = ".".join(place.scope) or "(module)"
            yield Mutant(name, place.line, old.strip(), new.strip(), tree)
            place.put(node)


def _places(node, scope, line, statement) -> Iterator[tuple[ast.AST, Place]]:
    """Yield each node that may be changed, and its place."""
    outside = scope, line
    if isinstance(node, _SCOPES):
        scope = (*scope, node.name)
    if isinstance(node, ast.FunctionDef):
        line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    for field, value in ast.iter_fields(node):
        if field in _UNTOUCHED:
            continue
        # The defaults of arguments are computed outside the function.
        here = outside if field == "args" and isinstance(node, ast.FunctionDef) else (scope, line)
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, _WORDS[2:]) or _is_doc(child):
                continue
            stated = child if isinstance(child, ast.stmt) else statement
            yield child, Place(*here, stated, node, field, index)
            if not isinstance(child, _WORDS):
                yield from _places(child, *here, stated)


def _is_doc(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST, place: Place) -> Iterator[ast.AST]:
    """Yield what may stand instead of a node."""
    match node:
        case ast.Compare(ops=ops):
            for number, operator in enumerate(ops):
                changed = copy.deepcopy(node)
                changed.ops[number] = _COMPARED[type(operator)]()
                yield changed
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield ast.BoolOp(other, values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in _COMPUTED:
            yield ast.BinOp(left, _COMPUTED[type(operator)](), right)
        case ast.Constant(value):
            yield from _constants(value)
        case ast.Call(func, [first, second, *others], keywords):
            if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                yield ast.Call(func, [second, first, *others], keywords)
    if place.field == "test" and isinstance(node, _TESTED):
        yield ast.UnaryOp(ast.Not(), node)
    yield from _statements(node)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, str):
        yield ast.Constant(value + "XX" if value else "XX")
