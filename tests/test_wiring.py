"""What `serve` does while its database comes up beside it."""

from typing import Any

import pytest

from bot import wiring
from bot.core.errors import Permanent, Temporary


def test_serve_waits_for_a_database_that_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []

    def lay(settings: Any) -> str:
        tries.append(settings)
        if len(tries) < 3:
            raise Temporary("nothing listens there")
        return "laid"

    monkeypatch.setattr(wiring, "lay", lay)
    assert wiring.patiently("settings") == "laid"  # type: ignore[arg-type, comparison-overlap]
    assert tries == ["settings"] * 3


def test_serve_does_not_wait_for_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay(settings: Any) -> str:
        raise Permanent("it refuses the user or the password")

    monkeypatch.setattr(wiring, "lay", lay)
    with pytest.raises(Permanent, match="refuses"):
        wiring.patiently("settings")  # type: ignore[arg-type]
