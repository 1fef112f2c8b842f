"""Writes a `Template` as Jinja2: root fields become variables of their names, all else has a name that begins with
`go_`. Every tag is written so that it neither strips nor keeps space but what the text says.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from repository.go_template.fault import Place
from repository.go_template.tree import (
    Call,
    Chain,
    Choice,
    Constant,
    Inclusion,
    Jump,
    Loop,
    Node,
    Pipeline,
    Print,
    Template,
    Term,
    Text,
    Variable,
)
from repository.problem import did_you_mean

_ROOT = ""
"""What stands for the dot where it is all the data."""

_SPECIAL = re.compile(r"\{(?=[{%#]|\Z)|\r\n?")
"""What Jinja2 would take for a tag, perhaps with what follows the text, or would write as another line break."""

_OPERATORS = {"and": " and ", "or": " or "}
_TAKEN = frozenset(
    {"true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "self"}
    | {
        "loop",
        "super",
        "caller",
        "varargs",
        "kwargs",
        "range",
        "dict",
        "lipsum",
        "cycler",
        "joiner",
        "namespace",
    }
)


class _Scope(Struct, frozen=True):
    """What the dot, `$` and the variables are called here."""

    dot: str = _ROOT
    root: str = _ROOT
    variables: Mapping[str, str] = {}

    def with_dot(self, dot: str) -> "_Scope":
        return _Scope(dot, self.root, self.variables)

    def with_variable(self, name: str, emitted: str) -> "_Scope":
        return _Scope(self.dot, self.root, {**self.variables, name: emitted})


def emit(template: Template, variables: Collection[str] | None = None) -> str:
    """The template as Jinja2. `variables`: the names that the data has, None for whatever it has.

    Raises GoTemplateError for a name that is not there.
    """
    return _Emitter(template, variables).text()


class _Emitter:
    def __init__(self, template: Template, variables: Collection[str] | None) -> None:
        self._template = template
        self._variables = variables
        self._macros = {name: f"go_template{i}" for i, name in enumerate(template.definitions, start=1)}
        self._numbers = itertools.count(1)
        self._has_variables = False

    def text(self) -> str:
        parts = []
        for name, nodes in self._template.definitions.items():
            body = self._whole(nodes, _Scope("go_dot", "go_dot"))
            parts.append(f"{_tag(f'macro {self._macros[name]}(go_dot)')}{body}{_tag('endmacro')}")
        text = "".join(parts) + self._whole(self._template.nodes, _Scope())
        return text + '{{ "" }}' if text.endswith("\n") else text  # a last line break would be dropped

    def _whole(self, nodes: Sequence[Node], scope: _Scope) -> str:
        self._has_variables = False
        body = "".join(self._nodes(nodes, scope))
        return _tag("set go_vars = namespace()") + body if self._has_variables else body

    def _nodes(self, nodes: Sequence[Node], scope: _Scope) -> Iterator[str]:
        for node in nodes:
            match node:
                case Text(text):
                    yield _literal_text(text)
                case Print(Pipeline(variables=()) as pipeline):
                    yield f"{{{{ go_text({self._term(pipeline.value, scope)}) }}}}"
                case Print(pipeline):
                    value = self._term(pipeline.value, scope)
                    scope = self._bound(pipeline, scope)
                    yield self._set(scope.variables[pipeline.variables[0]], value)
                case Choice(moves_dot=True):
                    yield from self._with(node, scope)
                case Choice():
                    yield from self._if(node, scope)
                case Loop():
                    yield from self._loop(node, scope)
                case Jump(word):
                    yield _tag(word)
                case Inclusion(name, value, place):
                    yield self._inclusion(name, value, place, scope)

    def _if(self, node: Choice, scope: _Scope) -> Iterator[str]:
        first, *others = node.branches
        condition = self._term(first.condition.value, scope)
        if first.condition.variables:
            scope = self._bound(first.condition, scope)
            variable = scope.variables[first.condition.variables[0]]
            yield self._set(variable, condition)
            condition = variable
        yield _tag(f"if {condition}")
        yield from self._nodes(first.body, scope)
        while others and not others[0].condition.variables:
            yield _tag(f"elif {self._term(others[0].condition.value, scope)}")
            yield from self._nodes(others.pop(0).body, scope)
        if others or node.otherwise:
            yield _tag("else")
            rest = Choice(tuple(others), node.otherwise, moves_dot=False)
            yield from self._if(rest, scope) if others else self._nodes(node.otherwise, scope)
        yield _tag("endif")

    def _with(self, node: Choice, scope: _Scope) -> Iterator[str]:
        first, *others = node.branches
        value = self._term(first.condition.value, scope)
        dot = f"go_dot{next(self._numbers)}"
        yield _tag(f"with {dot} = {value}")
        if first.condition.variables:
            scope = self._bound(first.condition, scope)
            yield self._set(scope.variables[first.condition.variables[0]], dot)
        yield _tag(f"if {dot}")
        yield from self._nodes(first.body, scope.with_dot(dot))
        if others or node.otherwise:
            yield _tag("else")
            rest = Choice(tuple(others), node.otherwise, moves_dot=True)
            yield from self._with(rest, scope) if others else self._nodes(node.otherwise, scope)
        yield _tag("endif") + _tag("endwith")

    def _loop(self, node: Loop, scope: _Scope) -> Iterator[str]:
        over = self._term(node.over.value, scope)
        item = f"go_item{next(self._numbers)}"
        names = node.over.variables
        if names:
            whole, over = over, f"go_over{next(self._numbers)}"
            yield _tag(f"with {over} = {whole}")
            scope = self._bound(node.over, scope)
            for name in names if node.otherwise else ():
                yield self._set(scope.variables[name], over)
        yield _tag(f"for {item} in go_range({over})")
        for name, part in zip(names, ("[0]", "[1]")[-len(names) :] if names else (), strict=True):
            yield self._set(scope.variables[name], item + part)
        yield from self._nodes(node.body, scope.with_dot(f"{item}[1]"))
        if node.otherwise:
            yield _tag("else")
            yield from self._nodes(node.otherwise, scope)
        yield _tag("endfor")
        if names:
            yield _tag("endwith")

    def _inclusion(self, name: str, value: Pipeline | None, place: Place, scope: _Scope) -> str:
        macro = self._macros.get(name)
        if macro is None:
            hint = did_you_mean(name, self._macros)
            raise place.error(
                f'no template "{name}" is defined in this text{hint}; put a {{{{define}}}} into it'
            )
        given = "none"
        if value is not None:
            is_root = isinstance(value.value, Chain | Variable) and self._is_root(value.value, scope)
            given = self._whole_root() if is_root else self._term(value.value, scope)
        return f"{{{{ {macro}(go_step({given})) }}}}"

    def _is_root(self, term: Chain | Variable, scope: _Scope) -> bool:
        if isinstance(term, Variable):
            return term.name == "" and scope.root == _ROOT
        return term.of is None and not term.fields and scope.dot == _ROOT

    def _whole_root(self) -> str:
        """All of the data that the text speaks of, as a map."""
        names = sorted(set(_heads(self._template)))
        known = [name for name in names if self._variables is None or name in self._variables]
        return "{" + ", ".join(f'"{name}": {name}' for name in known if _is_name(name)) + "}"

    def _bound(self, pipeline: Pipeline, scope: _Scope) -> _Scope:
        """The scope behind a pipeline that sets variables."""
        self._has_variables = True
        for name in pipeline.variables:
            if not pipeline.assigns:
                scope = scope.with_variable(name, f"go_vars.{name}{next(self._numbers)}")
            elif name not in scope.variables:
                raise pipeline.place.error(f"${name} is set before it is declared; write ${name} := ...")
        return scope

    @staticmethod
    def _set(variable: str, value: str) -> str:
        return _tag(f"set {variable} = {value}")

    def _term(self, term: Term, scope: _Scope) -> str:
        match term:
            case Constant(None):
                return "none"
            case Constant(bool(value)):
                return "true" if value else "false"
            case Constant(str(value)):
                return _literal(value)
            case Constant(value):
                return f"({value!r})" if str(value).startswith("-") else repr(value)
            case Variable("", place):
                return self._data(scope.root, place)
            case Variable(name, place):
                if name not in scope.variables:
                    hint = did_you_mean(name, scope.variables)
                    raise place.error(
                        f"${name} is not declared here{hint}; write {{{{${name} := ...}}}} before it"
                    )
                return scope.variables[name]
            case Chain(of, fields, place):
                return self._chain(of, fields, place, scope)
            case Call("not", (argument,)):
                return f"(not {self._term(argument, scope)})"
            case Call("and" | "or" as word, arguments):
                return f"({_OPERATORS[word].join(self._term(each, scope) for each in arguments)})"
            case Call(function, arguments):
                return f"go_{function}({', '.join(self._term(each, scope) for each in arguments)})"

    def _chain(self, of: Term | None, fields: tuple[str, ...], place: Place, scope: _Scope) -> str:
        is_root = scope.dot == _ROOT if of is None else isinstance(of, Variable) and self._is_root(of, scope)
        if is_root and fields:
            value = self._variable(fields[0], place)
            fields = fields[1:]
        elif of is None:
            value = self._data(scope.dot, place)
        else:
            value = self._term(of, scope)
        for field in fields:
            value = f'go_field({value}, "{field}")'
        return value

    def _variable(self, name: str, place: Place) -> str:
        """A field of the data, which in Jinja2 is a variable."""
        if self._variables is not None and name not in self._variables:
            names = ", ".join(f".{each}" for each in sorted(self._variables))
            raise place.error(f"there is no .{name}{did_you_mean(name, self._variables)}; there are {names}")
        if not _is_name(name):
            raise place.error(
                f".{name} cannot be told from a word of Jinja2; write {{{{ index . }}}} on a map instead"
            )
        return name

    @staticmethod
    def _data(name: str, place: Place) -> str:
        if name == _ROOT:
            raise place.error("this is all that the template is given; name a part of it, such as .Input")
        return name


def _heads(template: Template) -> Iterator[str]:
    """The first names of all chains."""
    stack: list[object] = [template.nodes, *template.definitions.values()]
    while stack:
        match stack.pop():
            case Chain(of, (head, *_)) if of is None or isinstance(of, Variable):
                yield head
            case Struct() as struct:
                stack += [getattr(struct, name) for name in struct.__struct_fields__]
            case tuple() as items:
                stack += items


def _is_name(name: str) -> bool:
    return name.isascii() and name not in _TAKEN and not name.startswith("go_")


def _tag(inside: str) -> str:
    return f"{{%+ {inside} +%}}"


def _literal_text(text: str) -> str:
    """Text that Jinja2 gives back as it is; little of it changes, for the marks of calls are looked for in it."""
    return _SPECIAL.sub(lambda match: f"{{{{ {_literal(match.group())} }}}}", text)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\x{ord(c):02x}" for c in escaped) + '"'
