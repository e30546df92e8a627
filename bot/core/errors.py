"""Errors that are sentences for the person in the thread, and the signals between a handler and the engine."""

from datetime import timedelta


class OpsbotError(Exception):
    """Base of every error of ours; its text is shown as it is."""


class Temporary(OpsbotError):
    """It may work in a moment; the engine tries again, never a change."""


class Permanent(OpsbotError):
    """It will not work by itself; the run ends and says so."""


class Refused(OpsbotError):
    """Not allowed, and why; nothing was changed."""


class NotUnderstood(OpsbotError):
    """The words could not be read; the text says what would have been."""


class Unknown(OpsbotError):
    """An answer came, but it does not say what was asked; the diagnosis claims nothing.

    `again_in` says when the same look will tell, because two of them can be compared then: the run waits for it.
    """

    def __init__(self, why: str, again_in: timedelta | None = None) -> None:
        super().__init__(why)
        self.again_in = again_in


class LeaseLost(OpsbotError):
    """Another process carries this run on; whatever this one was doing must stop without a trace."""
