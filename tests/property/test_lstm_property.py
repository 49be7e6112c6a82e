from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lstm import LSTMConfig
from tests.support.lstm_parts import Sparse, make_network, make_tokens, scores

M, SLOTS = 60, 12
NET = make_network(LSTMConfig(8, 3, 2))
TOKENS = make_tokens(
    8, np.minimum(np.random.default_rng(3).geometric(0.3, M) - 1, SLOTS - 1).astype(np.int32)
)
WHOLE = scores(NET, TOKENS, SLOTS)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, M), max_size=8).map(sorted))
def test_cutting_the_tokens_elsewhere_changes_no_bit_of_a_score(cut: list[int]) -> None:
    np.testing.assert_array_equal(scores(NET, TOKENS, SLOTS, cut=cut), WHOLE)


@settings(deadline=None, max_examples=30)
@given(st.permutations(TOKENS.slot.tolist()), st.permutations(range(SLOTS)))
def test_neither_order_among_connections_nor_slot_changes_a_bit(order: list[int], slots: list[int]) -> None:
    """Tokens are merged in another way, each connection's in their order, and connections have other slots."""
    own = [iter(np.flatnonzero(TOKENS.slot == s)) for s in range(SLOTS)]
    at = np.array([next(own[s]) for s in order])
    moved = Sparse(TOKENS.rows[at], TOKENS.values[at], np.array(slots, np.int32)[TOKENS.slot[at]])
    np.testing.assert_array_equal(scores(NET, moved, SLOTS), WHOLE[at])
