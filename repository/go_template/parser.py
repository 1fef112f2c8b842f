"""From tokens to a `Template`. What variables and fields stand for is not looked at here."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from repository.go_template.functions import check_call
from repository.go_template.lexer import Kind, Token, tokens
from repository.go_template.tree import (
    Branch,
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

MOST_BLOCKS = 30
MOST_LOOPS = 8
MOST_PARENTHESES = 12
MOST_STAGES = 20
"""How deep a template may nest: what renders it recurses, and a Python function holds few loops in one another."""

_CONSTANTS = {"true": True, "false": False, "nil": None}
_KEYWORDS = frozenset(
    {"if", "else", "end", "with", "range", "define", "block", "template", "break", "continue"}
)


def parse(text: str) -> Template:
    """Raises GoTemplateError at the first thing that is wrong."""
    return _Parser(tokens(text)).template()


class _Parser:
    def __init__(self, made: Iterable[Token]) -> None:
        self._tokens = list(made)
        self._at = 0
        self._blocks: list[Token] = []  # the keywords of those around
        self._parentheses = 0
        self._definitions: dict[str, tuple[Node, ...]] = {}

    def template(self) -> Template:
        nodes, last = self._nodes()
        if last.kind != "eof":
            raise last.place.error(f'"{last.value}" without an "if", "with" or "range" before it')
        return Template(nodes, self._definitions)

    def _nodes(self) -> tuple[tuple[Node, ...], Token]:
        """Up to an `else` or `end` that belongs to the block around, or to the end of it all; that token too."""
        nodes: list[Node] = []
        while (token := self._next()).kind != "eof":
            if token.kind == "text":
                nodes.append(Text(token.text))
            elif token.kind == "end":
                raise token.place.error("this action is empty")
            elif token.kind == "name" and token.value in ("else", "end"):
                return tuple(nodes), token
            else:
                nodes += self._action(token)
        if self._blocks:
            raise self._blocks[-1].place.error(f'this "{self._blocks[-1].value}" has no "{{{{end}}}}"')
        return tuple(nodes), token

    def _action(self, token: Token) -> Iterator[Node]:
        match token.value if token.kind == "name" else None:
            case "if" | "with":
                yield self._choice(token)
            case "range":
                yield self._loop(token)
            case "define":
                self._define(token, self._template_name(token))
            case "block":
                name, given = self._template_name(token), self._pipeline()
                self._define(token, name)
                yield Inclusion(name, given, token.place)
            case "template":
                name = self._template_name(token)
                value = None if self._peek().kind == "end" else self._pipeline()
                self._expect("end")
                yield Inclusion(name, value, token.place)
            case "break" | "continue" as word:
                if all(block.value != "range" for block in self._blocks):
                    raise token.place.error(f'"{word}" stands inside of a "range" only')
                self._expect("end")
                yield Jump(word)
            case _:
                self._at -= 1
                pipeline = self._pipeline(most_variables=1)
                self._expect("end")
                yield Print(pipeline)

    def _choice(self, token: Token) -> Choice:
        branches: list[Branch] = []
        otherwise: tuple[Node, ...] = ()
        with self._block(token):
            while True:
                condition = self._pipeline(most_variables=1)
                self._expect("end")
                body, last = self._nodes()
                branches.append(Branch(condition, body))
                if len(branches) > MOST_BLOCKS and (token.value == "with" or condition.variables):
                    raise token.place.error(f'more than {MOST_BLOCKS} "else {token.value}" in one chain')
                if last.value == "else" and self._peek().value == token.value and self._peek().kind == "name":
                    self._next()
                    continue
                if last.value == "else":
                    otherwise = self._otherwise(token)
                else:
                    self._expect("end")
                return Choice(tuple(branches), otherwise, moves_dot=token.value == "with")

    def _loop(self, token: Token) -> Loop:
        if sum(block.value == "range" for block in self._blocks) == MOST_LOOPS:
            raise token.place.error(f'more than {MOST_LOOPS} "range" in one another')
        with self._block(token):
            over = self._pipeline(most_variables=2)
            self._expect("end")
            body, last = self._nodes()
            if last.value == "else":
                return Loop(over, body, self._otherwise(token))
            self._expect("end")
            return Loop(over, body, ())

    def _otherwise(self, token: Token) -> tuple[Node, ...]:
        self._expect("end")
        nodes, last = self._nodes()
        if last.value != "end":
            raise last.place.error(f'the "{token.value}" of line {token.place.line} has an "else" already')
        self._expect("end")
        return nodes

    def _define(self, token: Token, name: str) -> None:
        if self._blocks and token.value == "define":
            raise token.place.error('a "define" stands outside of all blocks')
        if name in self._definitions:
            raise token.place.error(f'the template "{name}" is defined twice')
        self._expect("end")
        self._definitions[name] = ()
        outside, self._blocks = self._blocks, []
        with self._block(token):
            nodes, last = self._nodes()
        self._blocks = outside
        if last.value != "end":
            raise last.place.error(f'a "{token.value}" has no "else"')
        self._expect("end")
        self._definitions[name] = nodes

    def _template_name(self, token: Token) -> str:
        name = self._next()
        if name.kind != "constant" or not isinstance(name.value, str):
            raise name.place.error(f'behind "{token.value}" stands the name of a template, in quotes')
        return name.value

    def _pipeline(self, *, most_variables: int = 0) -> Pipeline:
        place = self._peek().place
        variables, assigns = self._variables(most_variables)
        value = self._command(None)
        stages = 1
        while self._peek().kind == "pipe":
            self._next()
            stages += 1
            if stages > MOST_STAGES:
                raise place.error(f"more than {MOST_STAGES} stages in one pipeline")
            value = self._command(value)
        return Pipeline(value, place, variables, assigns)

    def _variables(self, most: int) -> tuple[tuple[str, ...], bool]:
        """The variables before `:=` or `=`, if there are some."""
        begun, names = self._at, []
        while self._peek().kind == "variable":
            names.append(self._next())
            if self._peek().kind in ("declare", "assign"):
                kind = self._next().kind
                if len(names) > most:
                    raise names[0].place.error(
                        "no variable is set here" if not most else "one variable is set here"
                    )
                if any(name.value == "$" for name in names):
                    raise names[0].place.error('"$" is the data; a variable has a name, such as $x')
                return tuple(name.text[1:] for name in names), kind == "assign"
            if self._peek().kind != "comma":
                break
            self._next()
        self._at = begun
        return (), False

    def _command(self, given: Term | None) -> Term:
        """One stage; `given` is what the one before it gave, a function's last argument."""
        first = self._peek()
        if first.kind == "name" and first.value not in _CONSTANTS:
            self._next()
            arguments = []
            while self._is_operand:
                arguments.append(self._operand())
            arguments += [given] if given is not None else []
            return self._call(first, tuple(arguments))
        value = self._operand()
        if given is not None:
            raise first.place.error(
                "behind a pipe stands a function, which gets the value as its last argument"
            )
        if self._is_operand:
            what = "a field takes" if first.kind == "field" else "this takes"
            raise self._peek().place.error(f"{what} no arguments; only functions do")
        if isinstance(value, Constant) and value.value is None:
            raise first.place.error("nil is nothing to print; it is an argument only")
        return value

    @property
    def _is_operand(self) -> bool:
        return self._peek().kind in ("name", "field", "dot", "variable", "constant", "open")

    def _operand(self) -> Term:
        token = self._next()
        value: Term | None
        match token.kind:
            case "name" if token.value in _CONSTANTS:
                value = Constant(_CONSTANTS[token.text], token.place)
            case "name":
                value = self._call(token, ())
            case "constant":
                value = Constant(token.value, token.place)
            case "variable":
                value = Variable(token.text[1:], token.place)
            case "dot":
                return Chain(None, (), token.place)
            case "field":
                self._at -= 1
                value = None
            case "open":
                value = self._parenthesis(token)
            case "eof" | "end":
                raise token.place.error("a value is missing here")
            case _:
                raise token.place.error(f'"{token.value}" cannot stand here')
        fields = self._fields(first=token.kind == "field")
        if fields and isinstance(value, Constant):
            raise token.place.error("a constant has no fields")
        return Chain(value, fields, token.place) if fields else _present(value)

    def _fields(self, *, first: bool) -> tuple[str, ...]:
        """Those right behind, without space between; the `first` may stand by itself."""
        fields = []
        while self._peek().kind == "field" and (self._peek().is_glued or first):
            fields.append(self._next().text)
            first = False
        return tuple(fields)

    def _parenthesis(self, token: Token) -> Term:
        self._parentheses += 1
        if self._parentheses > MOST_PARENTHESES:
            raise token.place.error(f"more than {MOST_PARENTHESES} parentheses in one another")
        pipeline = self._pipeline()
        closing = self._next()
        if closing.kind != "close":
            raise closing.place.error('a ")" is missing here')
        self._parentheses -= 1
        return pipeline.value

    def _call(self, name: Token, arguments: tuple[Term, ...]) -> Call:
        if name.value in _KEYWORDS:
            raise name.place.error(f'"{name.value}" cannot stand here')
        if problem := check_call(name.text, len(arguments)):
            raise name.place.error(problem)
        return Call(name.text, arguments, name.place)

    @contextmanager
    def _block(self, token: Token) -> Iterator[None]:
        if len(self._blocks) == MOST_BLOCKS:
            raise token.place.error(f"more than {MOST_BLOCKS} blocks in one another")
        self._blocks.append(token)
        yield
        self._blocks.pop()

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _expect(self, kind: Kind) -> None:
        token = self._next()
        if token.kind != kind:
            raise token.place.error(f'"{token.value}" cannot stand here; expected "}}}}"')


def _present(value: Term | None) -> Term:
    assert value is not None  # only a field has no term before it, and then there is one
    return value
