"""The simulated machines reach nothing of the real one here either."""

import pytest

from tests.installation.tripwires import Tripwires


@pytest.fixture(scope="session")
def tripwires() -> Tripwires:
    return Tripwires()
