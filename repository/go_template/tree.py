"""What a template says, as values."""

from typing import TypeAlias

from msgspec import Struct

from repository.go_template.fault import Place


class Constant(Struct, frozen=True):
    """None is Go's nil."""

    value: str | int | float | bool | None
    place: Place


class Chain(Struct, frozen=True):
    """Fields of what `of` gives: the dot where that is None."""

    of: "Term | None"
    fields: tuple[str, ...]
    place: Place


class Variable(Struct, frozen=True):
    """`$name`, or `$` alone, which has the name ""."""

    name: str
    place: Place


class Call(Struct, frozen=True):
    """A function with what it is given."""

    function: str
    arguments: tuple["Term", ...]
    place: Place


Term: TypeAlias = Constant | Chain | Variable | Call


class Pipeline(Struct, frozen=True):
    """A value, and the variables that get it: declared by it, or, with `assigns`, there before."""

    value: Term
    place: Place
    variables: tuple[str, ...] = ()
    assigns: bool = False


class Text(Struct, frozen=True):
    text: str


class Print(Struct, frozen=True):
    """Prints its value unless that goes to a variable."""

    pipeline: Pipeline


class Branch(Struct, frozen=True):
    """One condition of an `if` or a `with`, and what it leads to."""

    condition: Pipeline
    body: tuple["Node", ...]


class Choice(Struct, frozen=True):
    """The first branch whose condition holds, else `otherwise`. `moves_dot`: a `with`."""

    branches: tuple[Branch, ...]
    otherwise: tuple["Node", ...]
    moves_dot: bool


class Loop(Struct, frozen=True):
    over: Pipeline
    body: tuple["Node", ...]
    otherwise: tuple["Node", ...]


class Jump(Struct, frozen=True):
    """`break` or `continue`."""

    word: str


class Inclusion(Struct, frozen=True):
    """What a template that was defined elsewhere gives for a value."""

    name: str
    value: Pipeline | None
    place: Place


Node: TypeAlias = Text | Print | Choice | Loop | Jump | Inclusion


class Template(Struct, frozen=True):
    """The nodes of the whole, and those of the templates defined in it by name."""

    nodes: tuple[Node, ...]
    definitions: dict[str, tuple[Node, ...]]
