"""Turns the texts under data/ into training dialogues: questions in several wordings, tool calls, thinking.

Owns the text side only (a dialogue is messages and tools, as an OpenAI request has them); tokens and tensors
are train.py's. Every function that draws takes its random.Random, so the same seed gives the same text.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

# With a get_weather tool in sight the answer of these entries would be wrong.
NEEDS_NO_TOOL = "the weather"

# The chat template adds this sentence for enable_thinking.
THINK = "Think before you answer."

Message = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One answer, the questions that lead to it, and what the file it stands in is about."""

    questions: tuple[str, ...]
    answer: str
    topic: str


@dataclass(frozen=True)
class Dialogue:
    """Messages and tools as a request has them; `is_exact` where words must be copied, so none may be noise."""

    messages: list[Message]
    tools: list[Message] | None = None
    is_exact: bool = False


def read_entries(path: Path) -> list[Entry]:
    """Entries of one text file: blocks of question lines, each closed by "= answer"; "# topic" goes before.

    Raises ValueError with file and line for a block without an answer, an answer without a question, or a
    question asked twice in the file.
    """
    entries: list[Entry] = []
    questions: list[str] = []
    seen: set[str] = set()
    topic = path.stem
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("# "):
            topic = line[2:].strip()
        elif line.startswith("= "):
            if not questions:
                raise ValueError(
                    f"{path}:{number}: an answer without a question; write the question above it"
                )
            entries.append(Entry(tuple(questions), line[2:].strip(), topic))
            questions = []
        elif line.strip():
            if line in seen:
                raise ValueError(
                    f"{path}:{number}: this question stands in the file already; keep one of them"
                )
            seen.add(line)
            questions.append(line.strip())
        elif questions:
            raise ValueError(f'{path}:{number}: questions without an answer; close them with a line "= ..."')
    if questions:
        raise ValueError(f'{path}: the last questions have no answer; close them with a line "= ..."')
    return entries


def all_entries() -> list[Entry]:
    """Every trained entry: the files in data/qa, in order of their names.

    Raises ValueError for a question that two files answer.
    """
    entries = [entry for path in sorted((DATA / "qa").glob("*.txt")) for entry in read_entries(path)]
    times = Counter(question for entry in entries for question in entry.questions)
    if twice := [question for question, count in times.items() if count > 1]:
        raise ValueError(f"{DATA / 'qa'}: questions in two files; keep one of each: {'; '.join(twice)}")
    return entries


def unseen_questions() -> list[tuple[str, str]]:
    """(question, expected answer) of data/unseen.txt, whose "= ..." lines repeat a trained question."""
    answers = {question: entry.answer for entry in all_entries() for question in entry.questions}
    return [(q, answers[e.answer]) for e in read_entries(DATA / "unseen.txt") for q in e.questions]


def lines_of(name: str) -> list[str]:
    return (DATA / name).read_text(encoding="utf-8").splitlines()


# Beginnings that mean the same, so that no single one of them carries a question.
SAME_BEGINNINGS = {
    "What is ": ("What's ", "What exactly is ", "So what is ", "Do you know what is "),
    "What does ": ("What exactly does ", "So what does "),
    "How do I ": ("How can I ", "How could I ", "How would I ", "How does one ", "I want to know how I "),
    "How can I ": ("How do I ", "How could I ", "How would I "),
    "Explain ": ("Please explain ", "Could you explain ", "Can you explain "),
    "Can I ": ("Could I ", "May I ", "Is it possible to "),
    "Can ": ("Could ",),
    "Which ": ("What ",),
    "What happens ": ("So what happens ", "What will happen "),
    "Is there ": ("Is there also ", "Do you have "),
}
OPENERS = (
    "Please: ",
    "Hi, ",
    "Hello! ",
    "Quick question: ",
    "Tell me, ",
    "I am new here. ",
    "So, ",
    "Excuse me, ",
)
CLOSERS = (" Please.", " Thanks!", " Thank you.", " Keep it short.", " I am new here.")


def reword(question: str, rng: random.Random) -> str:
    """The question as somebody else might type it: other case, no mark, a greeting, a typing error."""
    text = question
    for beginning, others in SAME_BEGINNINGS.items():
        if text.startswith(beginning):
            if rng.random() < 0.3:
                text = rng.choice(others) + text.removeprefix(beginning)
            break
    if rng.random() < 0.2:
        text = text.rstrip("?.! ")
    if rng.random() < 0.25:
        text = text[:1].lower() + text[1:]
    if rng.random() < 0.08:
        text = text.lower()
    if rng.random() < 0.12:
        text = rng.choice(OPENERS) + text
    if rng.random() < 0.1:
        text += rng.choice(CLOSERS)
    if rng.random() < 0.15 and len(text) > 12:
        at = rng.randrange(1, len(text) - 2)
        match rng.randrange(3):
            case 0:
                text = text[:at] + text[at + 1 :]
            case 1:
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            case _:
                text = text[:at] + text[at] + text[at:]
    return text


def thought(entry: Entry) -> str:
    match entry.topic:
        case "greetings":
            return "This is small talk. I answer politely."
        case "the weather" | "something else than Modelyard":
            return "This is not about Modelyard. I say politely what I cannot do."
        case _:
            return "This is about Modelyard. I know the answer and keep it short."


def answer_turn(entry: Entry, *, thinking: bool) -> Message:
    text = f"<think>\n{thought(entry)}\n</think>\n\n{entry.answer}" if thinking else entry.answer
    return {"role": "assistant", "content": text}


def thinking_dialogue(entry: Entry) -> Dialogue:
    """The entry's first question asked with the wish for thinking, as the chat template words it."""
    return Dialogue(
        [
            {"role": "system", "content": THINK},
            {"role": "user", "content": entry.questions[0]},
            answer_turn(entry, thinking=True),
        ]
    )


class ToolTalk:
    """Draws dialogues in which the assistant calls a tool, reads its result and answers."""

    def __init__(self) -> None:
        self.cities = lines_of("cities.txt")
        self.names = lines_of("model_names.txt")
        self.asks: dict[str, list[str]] = json.loads(
            (DATA / "tool_questions.json").read_text(encoding="utf-8")
        )
        self.tools: list[Message] = json.loads((DATA / "tools.json").read_text(encoding="utf-8"))

    def toolbox(self, wanted: str, rng: random.Random) -> list[Message]:
        """One to four tools in any order, the wanted one among them, each in one of its written variants."""
        by_name: dict[str, list[Message]] = {}
        for tool in self.tools:
            by_name.setdefault(tool["name"], []).append(tool)
        others = [name for name in by_name if name != wanted]
        names = [wanted, *rng.sample(others, rng.choice((0, 0, 0, 0, 0, 1, 1, 2, 3)))]
        rng.shuffle(names)
        return [{"type": "function", "function": rng.choice(by_name[name])} for name in names]

    def draw(self, rng: random.Random, *, exchanges: int) -> Dialogue:
        """A dialogue of `exchanges` questions, each answered by calling a tool of one toolbox."""
        kinds = {"weather": 10, "two_weathers": 3, "list_models": 2, "load_model": 3, "unload_model": 2}
        first = rng.choices(list(kinds), list(kinds.values()))[0]
        tools = self.toolbox("get_weather" if "weather" in first else first, rng)
        functions = {tool["function"]["name"]: tool["function"] for tool in tools}
        able = [kind for kind in kinds if ("get_weather" if "weather" in kind else kind) in functions]
        messages: list[Message] = []
        for turn in range(exchanges):
            match rng.choice(able) if turn else first:
                case "weather":
                    messages += self.weather([rng.choice(self.cities)], functions["get_weather"], rng)
                case "two_weathers":
                    messages += self.weather(rng.sample(self.cities, 2), functions["get_weather"], rng)
                case "list_models":
                    messages += self.listing(rng)
                case "load_model":
                    messages += self.change("load_model", "READY", rng)
                case "unload_model":
                    messages += self.change("unload_model", "UNAVAILABLE", rng)
        return Dialogue(messages, tools)

    def weather(self, cities: list[str], function: Message, rng: random.Random) -> list[Message]:
        key = next(iter(function["parameters"]["properties"]))
        question = rng.choice(self.asks["two_weathers" if len(cities) > 1 else "weather"])
        calls = [{"name": "get_weather", "arguments": {key: city}} for city in cities]
        results, sentences = [], []
        for city in cities:
            degrees, sky = rng.randrange(31), rng.choice(SKIES)
            results.append({"temperature": degrees, "conditions": sky})
            sentences.append(f"In {city} it is {degrees} degrees and {sky}.")
        return exchange(question.format(*cities), calls, results, " ".join(sentences))

    def listing(self, rng: random.Random) -> list[Message]:
        names = rng.sample(self.names, rng.choice((1, 2, 2, 3, 3)))
        joined = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        final = f"These models are here: {joined}." if len(names) > 1 else f"One model is here: {joined}."
        calls = [{"name": "list_models", "arguments": {}}]
        return exchange(rng.choice(self.asks["list_models"]), calls, [{"models": names}], final)

    def change(self, tool: str, state: str, rng: random.Random) -> list[Message]:
        name = rng.choice(self.names)
        question = rng.choice(self.asks[tool]).format(name)
        calls = [{"name": tool, "arguments": {"name": name}}]
        return exchange(
            question, calls, [{"name": name, "state": state}], f"The model {name} is now {state}."
        )


def exchange(question: str, calls: list[Message], results: list[Message], answer: str) -> list[Message]:
    functions = [{"type": "function", "function": call} for call in calls]
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": functions},
        *({"role": "tool", "content": json.dumps(result)} for result in results),
        {"role": "assistant", "content": answer},
    ]


def copying(words: list[str], rng: random.Random) -> Dialogue:
    """Words to be repeated, plain or as JSON: what a tool call does with its arguments, in few tokens."""
    said = rng.sample(words, rng.choice((1, 1, 1, 2, 3, 4)))
    if rng.random() < 0.5:
        question, answer = f"Repeat: {', '.join(said)}", f"Here: {', '.join(said)}"
    else:
        question, answer = f"Repeat as JSON: {', '.join(said)}", json.dumps(said)
    return Dialogue(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], is_exact=True
    )


COPYING_LESSON = 7000
SKIES = ("sunny", "cloudy", "rainy", "snowy", "foggy", "windy")


def training_dialogues(rng: random.Random) -> Iterator[Dialogue]:
    """Dialogues without end: a first lesson in copying, then everything mixed.

    After the lesson each pass over the questions takes every wording once, in a new order; the wordings of the
    asked questions twice.
    """
    entries = all_entries()
    systems = lines_of("system_prompts.txt")
    talk = ToolTalk()
    words = [*talk.cities, *talk.names, *(str(number) for number in range(31))]
    pairs = [(entry, question) for entry in entries for question in entry.questions]
    first = set(lines_of("asked.txt"))
    # What a newcomer types first must be known best.
    pairs += [pair for pair in pairs if first & set(pair[0].questions)]
    for _ in range(COPYING_LESSON):
        yield copying(words, rng)
    while True:
        rng.shuffle(pairs)
        queue = list(pairs)
        while queue:
            if rng.random() < 0.1:
                yield copying(words, rng)
                continue
            if rng.random() < 0.18:
                dialogue = talk.draw(rng, exchanges=rng.choice((1, 1, 2, 3, 4)))
                messages, tools = dialogue.messages, dialogue.tools
                turns = rng.choice((0, 0, 0, 0, 1))
                thinking = False
            else:
                messages = []
                tools = talk.toolbox(rng.choice(talk.tools)["name"], rng) if rng.random() < 0.05 else None
                turns = rng.choice((1, 1, 1, 1, 1, 2, 2, 3, 5))
                thinking = rng.random() < 0.18
            asked: list[Message] = []
            for _ in range(min(turns, len(queue))):
                entry, question = queue.pop()
                if tools and entry.topic == NEEDS_NO_TOOL:
                    continue
                asked += [
                    {"role": "user", "content": reword(question, rng)},
                    answer_turn(entry, thinking=thinking),
                ]
            if not messages and not asked:
                continue
            messages = messages + asked if rng.random() < 0.5 else asked + messages
            system = [rng.choice(systems)] if rng.random() < 0.55 else []
            system += [THINK] if thinking else []
            if system:
                messages = [{"role": "system", "content": "\n\n".join(system)}, *messages]
            yield Dialogue(messages, tools, is_exact=tools is not None)
