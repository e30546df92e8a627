"""The composition root: settings -> adapters -> engine -> Slack and console. Everything is put together here, once."""

from bot.wiring.checking import CHECKS, NO_CHANNELS, check, doctor, faults
from bot.wiring.foundation import Foundation, audit_export, audit_key, audit_verify, lay, redactor_of
from bot.wiring.logs import write_logs_as_json
from bot.wiring.reaching import REHEARSALS, STAGE
from bot.wiring.serving import Serving, serve
from bot.wiring.slack import SlackDesk

__all__ = [
    "CHECKS", "NO_CHANNELS", "REHEARSALS", "STAGE", "Foundation", "Serving", "SlackDesk", "audit_export", "audit_key",
    "audit_verify", "check", "doctor", "faults", "lay", "redactor_of", "serve", "write_logs_as_json",
]  # fmt: skip
