"""The options of `modelyard bench` that say what work is sent, for every subcommand that sends some."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

if TYPE_CHECKING:
    from benchmarks.harness.run import Wanted

Seconds = float | None
Requests = Annotated[int | None, typer.Option(help="Requests in all; default five a client, or 30 s.", min=1)]
PromptWords = Annotated[int | None, typer.Option(help="Words of a prompt; default the mix's.", min=1)]
OutputTokens = Annotated[int | None, typer.Option(help="Tokens of an answer; default the mix's.", min=1)]
Seed = Annotated[
    int | None, typer.Option(help="The same seed is the same work; drawn and recorded if absent.")
]


class WorkOptions(NamedTuple):
    """The options, by their names in Python."""

    rate: Annotated[
        float | None, typer.Option(help="Open loop instead: requests a second, at Poisson times.", min=0.001)
    ] = None
    requests: Requests = None
    prompt_words: PromptWords = None
    output_tokens: OutputTokens = None
    turns: Annotated[int | None, typer.Option(help="Turns of a conversation; default the mix's.", min=1)] = (
        None
    )
    seed: Seed = None
    warm_up: Annotated[int, typer.Option(help="Requests that are sent before and not measured.", min=0)] = 4
    ignore_eos: Annotated[
        bool, typer.Option(help="Ask for exactly the planned tokens; a server may refuse the field.")
    ] = True
    slo_ttft: Annotated[Seconds, typer.Option(help="Goodput: seconds to the first token.")] = None
    slo_tpot: Annotated[Seconds, typer.Option(help="Goodput: seconds per output token.")] = None
    slo_e2e: Annotated[Seconds, typer.Option("--slo-e2e", help="Goodput: seconds to the end.")] = None
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a request counts as failed.", min=0.1)
    ] = 300.0

    def wanted(self, *, mix: str, clients: int) -> "Wanted":
        """The work of one mix for so many clients."""
        from benchmarks.harness.run import Wanted
        from benchmarks.harness.work import Arrival, Slo

        return Wanted(
            mix=mix,
            arrival=Arrival(clients=clients, rate=self.rate),
            requests=self.requests,
            prompt_words=self.prompt_words,
            output_tokens=self.output_tokens,
            turns=self.turns,
            seed=self.seed,
            warm_up=self.warm_up,
            ignore_eos=self.ignore_eos,
            slo=Slo(ttft_s=self.slo_ttft, tpot_s=self.slo_tpot, e2e_s=self.slo_e2e),
            timeout_s=self.timeout,
        )


def with_work(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with these options on the command line in place of its parameter `work`."""
    options = inspect.signature(WorkOptions).parameters
    hints = get_type_hints(WorkOptions, include_extras=True)

    @functools.wraps(command)
    def taking_options(**given: Any) -> None:
        work = WorkOptions(**{name: given.pop(name) for name in options})
        command(**given, work=work)

    own = inspect.signature(command, eval_str=True)
    shown: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if parameter.name != "work":
            shown.append(parameter)
            continue
        shown += [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])
            for one in options.values()
        ]
    taking_options.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    taking_options.__annotations__ = {one.name: one.annotation for one in shown}
    return taking_options
