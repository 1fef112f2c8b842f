"""A model's folder with some files in place of its own: lays it out in a folder outside of the repository.

Files that are not replaced are links to the repository's, so that nothing is copied and nothing there is touched.
Names come from whoever asks for a load: `overlay_problem` must have passed them all before anything is written.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from repository.builder import CONFIG
from repository.snapshot import ModelEntry
from repository.versions import parse_version_folder

MOST_FILES = 1000
LONGEST_PART_BYTES = 255
LONGEST_NAME_BYTES = 1024


def overlay_problem(names: Iterable[str]) -> str | None:
    """Why files of these names (`version/name`) cannot be laid out; None if they can."""
    paths = []
    for name in names:
        if message := _name_problem(name):
            return f"file {name[:100]!r}: {message}"
        paths.append(PurePosixPath(name))
    if len(paths) > MOST_FILES:
        return f"{len(paths)} files are given; at most {MOST_FILES} can be"
    given = set(paths)
    for path in paths:
        inside = next((parent for parent in path.parents if parent in given), None)
        if inside is not None:
            return f"file {str(path)!r}: {str(inside)!r} is given as a file too, not a folder"
    return None


def lay_out(folder: Path, entry: ModelEntry | None, files: Mapping[str, bytes]) -> None:
    """Fill the empty `folder` with version folders: those of `entry`, with `files` in place of theirs."""
    given: dict[str, dict[tuple[str, ...], bytes]] = {}
    for name, content in files.items():
        version, *parts = name.split("/")
        given.setdefault(version, {})[tuple(parts)] = content
    originals = {str(version.number): version.path for version in entry.versions} if entry else {}
    for number in originals.keys() | given.keys():
        target, original = folder / number, originals.get(number)
        if original is not None and original.is_file():
            target.mkdir()
            if (original.name,) not in given.get(number, {}):
                (target / original.name).symlink_to(original.absolute())
            original = None
        is_whole = entry is not None and original == entry.path
        _lay_out(target, original, given.get(number, {}), without=(CONFIG,) if is_whole else ())


def _lay_out(
    target: Path,
    original: Path | None,
    files: Mapping[tuple[str, ...], bytes],
    *,
    without: Iterable[str] = (),
) -> None:
    """Make the folder `target` of `files` and of links to what else is in `original`. What holds one of the files
    is made anew, never linked: nothing is written through a link."""
    target.mkdir(exist_ok=True)
    inside: dict[str, dict[tuple[str, ...], bytes]] = {}
    for (first, *rest), content in files.items():
        if rest:
            inside.setdefault(first, {})[tuple(rest)] = content
        else:
            with (target / first).open("xb") as file:
                file.write(content)
    for first, below in inside.items():
        beneath = original / first if original is not None else None
        _lay_out(target / first, beneath if beneath is not None and beneath.is_dir() else None, below)
    taken = {first for first, *_ in files} | set(without)
    for child in original.iterdir() if original is not None else ():
        if child.name not in taken:
            (target / child.name).symlink_to(child.absolute())


def _name_problem(name: str) -> str | None:
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME_BYTES:
        return f"the name is longer than {LONGEST_NAME_BYTES} bytes"
    if not name.isprintable() or "\\" in name:
        return "the name holds a character that no file here may have"
    version, *parts = name.split("/")
    if parse_version_folder(version) is None or not parts:
        return "expected VERSION/NAME with a positive version, such as 1/model.gguf"
    for part in parts:
        if part in ("", ".", ".."):
            return f"{part!r} cannot be a part of the name"
        if part.startswith("."):
            return "hidden files are never looked at"
        if len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART_BYTES:
            return f"a part of the name is longer than {LONGEST_PART_BYTES} bytes"
    return None
