"""Numbers in sentences."""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 user`, `2 users`; `many` is given where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
