"""Which of a repository's files a model needs: one quantisation whole, or a checkpoint with its tokenizer. Pure.

Left out are what no engine reads (README, pictures), the same weights in another format, and projectors.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from msgspec import Struct

from repository.hub.errors import HubError
from repository.hub.reference import HubReference
from repository.hub.values import Choice, HubFile, Listing, Quantisation
from repository.pick import first_parts, is_projector, missing_parts, parts_of, stem
from repository.problem import did_you_mean

# What a person most likely wants where a repository has many: good answers at a third of the size.
_SUGGESTED = ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_K_M", "Q6_K", "Q8_0")
_QUANTISATION = re.compile(
    r"(?:^|[-._])((?:UD[-_])?(?:I?Q[1-8]_[A-Z0-9]+(?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))"
    r"(?=[-._]|\Z)",
    re.IGNORECASE,
)
# Others beside these are the same weights again, as `consolidated.safetensors` or `model.fp16.safetensors`.
_USUAL_TENSORS = re.compile(r"model(?:-[0-9]{5}-of-[0-9]{5})?\.safetensors\Z")
_COMPANIONS = (
    "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.py", "[0-9]_*/*",
)  # fmt: skip
_LICENCES = ("LICEN[CS]E*", "NOTICE*", "USE_POLICY*")
_NOT_NEEDED = ("README*", "training_args*", "trainer_state.json", "*.index.json", "all_results.json")


class Chosen(Struct, frozen=True):
    """The files to take; `load` is the one an engine is given, or a folder of the repository ("" is the whole).

    `base` is the folder that the files stand in; `notes` says what was decided without being asked.
    """

    files: tuple[HubFile, ...]
    load: str
    base: str = ""
    notes: tuple[str, ...] = ()


def choose(listing: Listing, reference: HubReference, choice: Choice) -> Chosen:
    """The files that the reference and the choice stand for. HubError: none, or several that exclude each other."""
    base, files = _inside(listing, reference)
    named = reference.file if reference.file and base != reference.file else None
    if named is not None and _matches(_short(named, base), choice.ignore):
        raise HubError(f"{listing.repo}: files such as {named} are not taken here", "missing")
    files = [file for file in files if _is_wanted(file.name, base, choice)]
    if not files:
        patterns = ", ".join((*choice.allow, *(f"not {pattern}" for pattern in choice.ignore)))
        raise HubError(
            f"{reference}: no file matches {patterns or 'that'}; it has {_some(listing)}", "missing"
        )
    if named is not None:
        return _named(listing, files, named, base, choice)
    ggufs = [file for file in files if file.name.lower().endswith(".gguf")]
    if any(_is_model(file.name) for file in ggufs):
        return _one_quantisation(files, ggufs, reference, base, choice)
    if choice.quant is not None:
        raise HubError(f"{reference} has no GGUF files, so there is no {choice.quant} to choose", "missing")
    return _checkpoint(files, reference, base, choice)


def quantisations(files: Sequence[HubFile]) -> list[Quantisation]:
    """The GGUF models among the files, smallest first; parts of one are together."""
    by_name = {file.name: file for file in files if _is_model(file.name)}
    heads = first_parts(list(by_name))
    labels = [quantisation_of(head) or stem(PurePosixPath(head).name) for head in heads]
    found = []
    for head, label in zip(heads, labels, strict=True):
        if labels.count(label) > 1:
            label = stem(PurePosixPath(head).name)
        parts = tuple(by_name[part] for part in parts_of(head) if part in by_name)
        found.append(Quantisation(label, parts))
    return sorted(found, key=lambda each: (each.size, each.label))


def quantisation_of(name: str) -> str | None:
    """The quantisation that a GGUF file's name tells, as `Q4_K_M`."""
    path = PurePosixPath(name)
    for text in (stem(path.name), *reversed(path.parent.parts)):
        if found := _QUANTISATION.findall(text):
            label: str = found[-1].upper()
            return label
    return None


def suggested(among: Sequence[Quantisation]) -> str:
    """The label to suggest: a usual one, else the smallest."""
    labels = [each.label for each in among]
    return next((label for label in _SUGGESTED if label in labels), labels[0])


def show_bytes(size: int) -> str:
    """A size for a person, in powers of ten as hubs show them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _inside(listing: Listing, reference: HubReference) -> tuple[str, list[HubFile]]:
    """The folder that is meant, and its files; a file that is named must be there."""
    names = [file.name for file in listing.files]
    wanted = reference.file
    if wanted is None:
        return "", list(listing.files)
    if wanted in names:
        base = _folder(wanted)
    elif any(name.startswith(f"{wanted}/") for name in names):
        base = wanted
    else:
        near = did_you_mean(wanted, names)
        raise HubError(f'{reference.repo} has no file "{wanted}"{near}; it has {_some(listing)}', "missing")
    return base, [file for file in listing.files if not base or file.name.startswith(f"{base}/")]


def _is_wanted(name: str, base: str, choice: Choice) -> bool:
    short = name.removeprefix(f"{base}/") if base else name
    if choice.allow and not _matches(short, choice.allow):
        return False
    return not _matches(short, choice.ignore)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns)


def _named(listing: Listing, files: list[HubFile], named: str, base: str, choice: Choice) -> Chosen:
    by_name = {file.name: file for file in listing.files}
    if choice.quant is not None:
        raise HubError(f"{listing.repo}/{named} names a file already; leave --quant out", "ambiguous")
    head = first_parts([named])[0]
    if missing := missing_parts([head], list(by_name)):
        raise HubError(f"{listing.repo} is incomplete: {missing[0]} is missing", "broken")
    parts = tuple(by_name[part] for part in parts_of(head))
    if not named.endswith(".safetensors") or f"{base}/config.json".lstrip("/") not in by_name:
        return Chosen(parts, head, base)
    beside = [file for file in files if _is_companion(file.name, base)]
    return Chosen((*beside, *parts), base, base)


def _one_quantisation(
    files: list[HubFile], ggufs: list[HubFile], reference: HubReference, base: str, choice: Choice
) -> Chosen:
    among = quantisations(ggufs)
    taken = _pick(among, reference, choice)
    head = taken.files[0].name
    if missing := missing_parts([head], [file.name for file in ggufs]):
        raise HubError(f"{reference} is incomplete: {missing[0]} is missing", "broken")
    models = [file for file in ggufs if _is_model(file.name)]
    extra = [file for file in files if file not in models and _is_extra(file.name, base, choice)]
    notes = []
    if left := [file.name for file in ggufs if file not in models and file not in extra]:
        notes.append(f"{', '.join(left[:3])} left out: no part of the text model")
    if any(file.name.endswith(".safetensors") for file in files):
        notes.append("it has safetensors as well; --ignore '*.gguf' takes those")
    return Chosen((*extra, *taken.files), head, _folder(head), tuple(notes))


def _pick(among: Sequence[Quantisation], reference: HubReference, choice: Choice) -> Quantisation:
    wanted = choice.quant
    if wanted is None:
        if len(among) == 1:
            return among[0]
        if choice.ask is None:
            raise HubError(
                f"{reference} has {len(among)} quantisations: {_sizes(among)}; "
                f"choose one with --quant, as --quant {suggested(among)}, or name its file",
                "ambiguous",
            )
        wanted = choice.ask(among, suggested(among))
    for each in among:
        if each.label.casefold() == wanted.casefold():
            return each
    near = did_you_mean(wanted.upper(), [each.label for each in among])
    raise HubError(f'{reference} has no quantisation "{wanted}"{near}; it has {_sizes(among)}', "missing")


def _checkpoint(files: list[HubFile], reference: HubReference, base: str, choice: Choice) -> Chosen:
    """A folder that transformers, vLLM, OpenVINO and others load; or the one weight file there is."""
    top = {_short(file.name, base): file for file in files}
    here = {name: file for name, file in top.items() if "/" not in name}
    weights = _weights(here)
    beside = [
        file
        for name, file in top.items()
        if name not in weights and (_is_companion(file.name, base) or _is_extra(file.name, base, choice))
    ]
    notes = []
    if any(name.endswith(".safetensors") for name in weights) and any(_is_torch(name) for name in here):
        notes.append("the same weights in .bin files left out")
    if missing := missing_parts(weights, list(here)):
        raise HubError(f"{reference} is incomplete: {missing[0]} is missing", "broken")
    if "config.json" in here or "openvino_model.xml" in here:
        if weights:
            return Chosen((*beside, *(here[name] for name in weights)), base, base, tuple(notes))
        raise HubError(f"{reference} has a config.json, but no weights that an engine here reads", "missing")
    singles = [name for name in here if name.lower().endswith((".pth", ".pt", ".bin", ".safetensors"))]
    if len(singles) == 1:
        licences = [file for name, file in here.items() if _matches(name, _LICENCES)]
        return Chosen((*licences, here[singles[0]]), here[singles[0]].name, base, tuple(notes))
    if singles:
        listed = ", ".join(f"{name} ({show_bytes(here[name].size)})" for name in singles[:20])
        raise HubError(
            f"{reference} has several models: {listed}; name one, as {reference.repo}/{here[singles[0]].name}",
            "ambiguous",
        )
    folders = sorted({name.partition("/")[0] for name in top if name.endswith("config.json") and "/" in name})
    if folders:
        raise HubError(
            f"{reference} keeps its models in folders: {', '.join(folders)}; name one", "ambiguous"
        )
    raise HubError(f"{reference} has no weights; it has {_some(Listing('', '', tuple(files)))}", "missing")


def _weights(here: dict[str, HubFile]) -> list[str]:
    """The weights of a checkpoint, in one format."""
    openvino = [name for name in here if name.startswith("openvino_") and name.endswith((".xml", ".bin"))]
    if "openvino_model.xml" in openvino:
        return openvino
    tensors = [name for name in here if name.endswith(".safetensors")]
    named = [name for name in tensors if _USUAL_TENSORS.match(name)]
    tensors = named or tensors
    if tensors:
        index = [name for name in here if name.endswith(".safetensors.index.json")]
        return [*index, *tensors]
    torch = [name for name in here if _is_torch(name)]
    return [*(name for name in here if name.endswith(".bin.index.json")), *torch] if torch else []


def _is_companion(name: str, base: str) -> bool:
    short = _short(name, base)
    if _matches(short, _LICENCES):
        return True
    if _matches(short, _NOT_NEEDED) or ("/" in short and not re.match(r"[0-9]_[A-Za-z]+/[^/]+\Z", short)):
        return False
    return _matches(short, _COMPANIONS)


def _is_extra(name: str, base: str, choice: Choice) -> bool:
    """A licence, or what was asked for by a pattern of its own."""
    short = _short(name, base)
    return _matches(short, _LICENCES) or bool(choice.allow and _matches(short, choice.allow))


def _is_torch(name: str) -> bool:
    return name.startswith("pytorch_model") and name.endswith(".bin")


def _is_model(name: str) -> bool:
    """False for what lies beside a model in GGUF: a projector for pictures, statistics that quantising used."""
    short = PurePosixPath(name).name
    return not is_projector(short) and not short.lower().startswith("imatrix")


def _short(name: str, base: str) -> str:
    return name.removeprefix(f"{base}/") if base else name


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _sizes(among: Sequence[Quantisation]) -> str:
    return ", ".join(f"{each.label} ({show_bytes(each.size)})" for each in among)


def _some(listing: Listing) -> str:
    names = [file.name for file in listing.files]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) if names else "no files"
