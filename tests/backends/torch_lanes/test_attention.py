"""Attention over lanes in both kinds of storage, beside attention written out in full."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from backends.torch_lanes.attention import LaneAttention  # noqa: E402
from backends.torch_lanes.layout import Layout, Piece  # noqa: E402
from backends.torch_lanes.storage import BlockStorage, MappedStorage, Storage  # noqa: E402

LANES, LANE_TOKENS, KV_TOKENS = 5, 96, 200
KEY_HEADS, SHARED, WIDTH, VALUE_WIDTH = 2, 3, 8, 4
CPU = torch.device("cpu")

STEPS = (
    {0: 20, 3: 1, 4: 7},
    {0: 1, 3: 1, 4: 1},
    {3: 30, 0: 1, 1: 2, 4: 1},
    {4: 5, 3: 1, 0: 17, 1: 1},
)
"""Tokens of each lane in one forward after the other."""


def storage_of(kind: str) -> Storage:
    sizes = {"lanes": LANES, "lane_tokens": LANE_TOKENS, "kv_tokens": KV_TOKENS}
    return MappedStorage(**sizes) if kind == "mapped" else BlockStorage(**sizes, device=CPU)


@pytest.fixture(params=["mapped", "blocks"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return storage_of(request.param)


def attend(attention: LaneAttention, pieces: list[Piece], states: Any, **asked: Any) -> Any:
    """One layer of one forward; `states` are queries, keys and values, [token, head, width] each."""
    attention.begin(Layout(pieces, device=CPU), kept=pieces[0].lane is not None)
    query, key, value = (one.transpose(0, 1)[None] for one in states)
    return attention(None, query, key, value, None, **asked)[0][0]


def random_states(tokens: int) -> tuple[Any, Any, Any]:
    return (
        torch.randn(tokens, KEY_HEADS * SHARED, WIDTH),
        torch.randn(tokens, KEY_HEADS, WIDTH),
        torch.randn(tokens, KEY_HEADS, VALUE_WIDTH),
    )


def written_out(query: Any, keys: Any, values: Any, position: int, **asked: Any) -> Any:
    """One token's outcome, [head, width], head by head and without any trick."""
    outcome = []
    for head in range(query.shape[0]):
        own = head // SHARED
        first = max(0, position + 1 - (asked.get("sliding_window") or position + 1))
        scores = keys[first : position + 1, own] @ query[head] * asked.get("scaling", WIDTH**-0.5)
        if cap := asked.get("softcap"):
            scores = cap * torch.tanh(scores / cap)
        weights = torch.exp(scores)
        sink = math.exp(asked["s_aux"][head]) if "s_aux" in asked else 0.0
        outcome.append((weights / (weights.sum() + sink)) @ values[first : position + 1, own])
    return torch.stack(outcome)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"scaling": 0.5},
        {"sliding_window": 4},
        {"sliding_window": 64},
        {"softcap": 2.0},
        {"softcap": 2.0, "sliding_window": 4},
        {"s_aux": torch.linspace(-1, 1, KEY_HEADS * SHARED), "sliding_window": 6},
    ],
    ids=lambda asked: "-".join(asked) or "plain",
)
def test_every_row_sees_its_own_lane_and_nothing_after_itself(
    storage: Storage, asked: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    attention = LaneAttention(storage)
    held: dict[int, tuple[Any, Any]] = {}
    for sizes in STEPS:
        pieces, at = [], 0
        states = random_states(sum(sizes.values()))
        for lane, size in sizes.items():
            start = held[lane][0].shape[0] if lane in held else 0
            storage.reserve(lane, start + size)
            pieces.append(Piece(lane, start, start + size, at))
            new = [one[at : at + size] for one in states[1:]]
            before = held.get(lane, [one[:0] for one in new])
            held[lane] = torch.cat([before[0], new[0]]), torch.cat([before[1], new[1]])
            at += size
        given = attend(attention, pieces, states, **asked)
        for piece in pieces:
            for offset in range(piece.count):
                token = piece.at + offset
                keys, values = held[piece.lane]
                expected = written_out(states[0][token], keys, values, piece.start + offset, **asked)
                assert torch.allclose(given[token], expected, atol=1e-5)


def test_texts_without_a_lane_leave_nothing_behind(storage: Storage) -> None:
    torch.manual_seed(3)
    states = random_states(9)
    pieces = [Piece(None, 0, 6, 0), Piece(None, 0, 3, 6)]
    given = attend(LaneAttention(storage), pieces, states)
    for piece in pieces:
        part = slice(piece.at, piece.at + piece.count)
        for offset in range(piece.count):
            expected = written_out(states[0][part][offset], states[1][part], states[2][part], offset)
            assert torch.allclose(given[piece.at + offset], expected, atol=1e-5)
    assert storage.token_bytes == 0


def fill(storage: Storage, lane: int, start: int, stop: int) -> None:
    storage.reserve(lane, stop)
    numbers = torch.arange(start, stop, dtype=torch.float32)[:, None, None] + 1000 * lane
    keys, values = numbers.expand(-1, KEY_HEADS, WIDTH), -numbers.expand(-1, KEY_HEADS, VALUE_WIDTH)
    storage.write(0, storage.slots([(lane, start, stop)]), keys, values)


def held_by(storage: Storage, lane: int, stop: int) -> list[float]:
    keys, values = storage.read(0, lane, 0, stop)
    assert torch.equal(keys[:, 0, 0], -values[:, 0, 0])
    numbers: list[float] = keys[:, 0, 0].tolist()
    return numbers


def test_a_lane_comes_back_from_what_was_saved_of_another(storage: Storage) -> None:
    fill(storage, 1, 0, 40)
    parts = [storage.save(1, 0, 7), storage.save(1, 7, 33)]
    assert [storage.saved_tokens(part) for part in parts] == [7, 26]
    storage.reserve(3, 33)
    storage.restore(3, 0, parts[0])
    storage.restore(3, 7, parts[1])
    assert held_by(storage, 3, 33) == held_by(storage, 1, 33)


def test_a_copy_is_a_copy(storage: Storage) -> None:
    fill(storage, 1, 0, 40)
    storage.reserve(2, 25)
    storage.copy(1, 2, 25)
    fill(storage, 1, 0, 5)
    fill(storage, 2, 25, 26)
    assert held_by(storage, 2, 25) == [1000.0 + number for number in range(25)]


def test_lanes_that_come_and_go_never_want_more_than_the_pool(storage: Storage) -> None:
    for turn in range(60):
        lanes = [(turn + shift) % LANES for shift in range(2)]
        for lane in lanes:
            fill(storage, lane, 0, KV_TOKENS // 2 - 4)
        assert held_by(storage, lanes[0], 10) == [1000.0 * lanes[0] + number for number in range(10)]
        for lane in lanes:
            storage.release(lane, 0)


def test_mapped_pages_that_nobody_uses_go_back_to_the_system() -> None:
    storage = MappedStorage(lanes=LANES, lane_tokens=4096, kv_tokens=4096)
    fill(storage, 0, 0, 4000)
    storage.release(0, 10)
    fill(storage, 1, 0, 4000)
    assert held_by(storage, 0, 10) == [float(number) for number in range(10)]
    assert storage.read(0, 0, 3000, 3001)[0].abs().max() == 0  # a page that was given back is zeros again
    assert held_by(storage, 1, 4000)[-1] == 4999.0
