"""A search killed again and again, on other numbers of ranks, ends with the same bits."""

from pathlib import Path

import pytest
import torture
from whole_runs import needs_fashion_mnist

pytestmark = needs_fashion_mnist


@pytest.mark.long
def test_killed_up_to_three_times_on_several_ranks(tmp_path: Path) -> None:
    assert torture.torture(tmp_path, kills=3, seed=1, epochs=4, longest=12.0) >= 1
