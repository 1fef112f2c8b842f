"""What a model may be called: names travel as `name[:version][:adapter]` and end up in addresses and logs."""


def name_problem(name: str) -> str | None:
    """Why a model cannot have this name; None if it can."""
    if ":" in name:
        return f'a model\'s name cannot hold a colon ("{name}"): what follows one is a version or an adapter'
    if not name or name != name.strip() or not name.isprintable():
        return f"{name!r} cannot be a model's name: it is empty, has a space at an end, or is not printable"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return f'"{name}" cannot be a model\'s name: the parts between slashes must be names too'
    return None


def printable(name: str) -> str:
    """A file name that can be printed and encoded: bytes that are not UTF-8 appear as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
