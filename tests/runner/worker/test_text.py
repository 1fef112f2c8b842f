"""Tokens to text: whole characters, stop texts held back, nothing lost."""

from hypothesis import given
from hypothesis import strategies as st

from runner.worker.text import StopMatcher, TextStream


def stream(stops: tuple[str, ...] = (), *, include: bool = False) -> TextStream:
    return TextStream(lambda token: bytes([token]), StopMatcher(stops, include=include))


def feed_all(text: TextStream, parts: list[bytes]) -> tuple[str, str | None]:
    sent = ""
    for part in parts:
        fed = text.feed(list(part))
        sent += fed.text
        if fed.stop is not None:
            return sent, fed.stop
    fed = text.flush()
    return sent + fed.text, fed.stop


def test_a_character_is_never_split() -> None:
    text = stream()
    pieces = [text.feed([byte]).text for byte in "é€😀".encode()]
    assert "".join(pieces) == "é€😀"
    assert all("�" not in piece for piece in pieces)


def test_an_incomplete_character_at_the_end_is_shown_as_a_replacement() -> None:
    text = stream()
    assert text.feed(list("é".encode()[:1])).text == ""
    assert text.flush().text == "�"


def test_the_stop_text_is_not_sent_nor_what_follows() -> None:
    assert feed_all(stream(("END",)), [b"one E", b"N", b"D two"]) == ("one ", "END")


def test_the_stop_text_is_sent_when_asked_for() -> None:
    assert feed_all(stream(("END",), include=True), [b"one END two"]) == ("one END", "END")


def test_text_that_only_began_like_a_stop_is_sent_later() -> None:
    text = stream(("END",))
    assert text.feed(list(b"EN")).text == ""
    assert text.feed(list(b"X")).text == "ENX"


def test_the_earliest_stop_wins_and_the_longest_at_one_place() -> None:
    assert feed_all(stream(("b", "bc", "d")), [b"abcd"]) == ("a", "bc")


@given(
    st.text("abAB é", max_size=30),
    st.lists(st.text("abAB", min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
    st.booleans(),
)
def test_how_the_text_is_cut_does_not_matter(
    text: str, stops: list[str], sizes: list[int], include: bool
) -> None:
    data = text.encode()
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    parts.append(data[at:])
    hits = sorted((text.find(stop), -len(stop), stop) for stop in stops if stop in text)
    sent, stop = feed_all(stream(tuple(stops), include=include), parts)
    if not hits:
        assert (sent, stop) == (text, None)
    else:
        # Bytes come one after another, so a stop that ends earlier is seen first.
        assert stop is not None
        end = text.find(stop)
        assert sent == text[: end + len(stop) if include else end]
        assert all(found not in sent for found in stops) or include
