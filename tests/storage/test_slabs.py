"""Memory that is used again: never while somebody looks at it, however small the part that he kept."""

from hypothesis import given
from hypothesis import strategies as st

from app.storage.transport.slabs import SLAB_BYTES, Filling, Slabs


def fill(filling: Filling, mark: int, count: int) -> memoryview:
    """Receive `count` bytes of one value."""
    room = filling.room()
    room[:count] = bytes([mark]) * count
    return filling.received(count)


def test_a_slab_is_used_again_when_nobody_looks_at_it() -> None:
    slabs = Slabs()
    first = id(slabs.take())
    assert id(slabs.take()) == first


def test_a_slab_is_left_alone_while_a_part_of_a_piece_is_kept() -> None:
    slabs = Slabs()
    kept = fill(Filling(slabs), 7, SLAB_BYTES)[1000:1001]
    for mark in range(20):
        fill(Filling(slabs), mark, SLAB_BYTES)
    assert bytes(kept) == b"\x07"


def test_pieces_follow_each_other_and_cannot_be_written_to() -> None:
    filling = Filling(Slabs())
    pieces = [fill(filling, mark, 50_000) for mark in range(12)]
    assert [set(piece) for piece in pieces] == [{mark} for mark in range(12)]
    assert all(piece.readonly for piece in pieces)
    assert len(filling.room()) > SLAB_BYTES // 8


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, SLAB_BYTES // 5), st.booleans()), max_size=60))
def test_what_is_kept_never_changes(steps: list[tuple[int, int, bool]]) -> None:
    slabs = Slabs()
    fillings: dict[int, Filling] = {}
    kept: list[tuple[int, memoryview]] = []
    for mark, (connection, count, keeps) in enumerate(steps):
        filling = fillings.setdefault(connection, Filling(slabs))
        piece = fill(filling, mark, count)
        if keeps:
            kept.append((mark, piece[count // 2 :]))
        if mark % 7 == 0:
            fillings.pop(connection)
    assert all(set(piece) == {mark} for mark, piece in kept)
