"""Log lines as JSON, every text redacted."""

import logging
from typing import Any

import structlog

from bot.core.shown import Redactor


def write_logs_as_json(redactor: Redactor) -> None:
    """JSON lines on stderr, every text redacted; libraries only when they warn."""

    def mask(_logger: Any, _method: str, event: Any) -> Any:
        return {key: redactor.show(value) if isinstance(value, str) else value for key, value in event.items()}

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask,
        ],
        processor=structlog.processors.JSONRenderer(),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("opsbot", "bot"):
        logging.getLogger(ours).setLevel(logging.INFO)
