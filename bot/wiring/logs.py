"""Log lines as JSON, every text redacted."""

import logging
import threading
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
    threading.excepthook = _last_words  # Python's own would print the traceback as it is, secrets and all


def _last_words(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "a thread"
    exc_info = (ended.exc_type, ended.exc_value, ended.exc_traceback) if ended.exc_value else None
    logging.getLogger("opsbot").critical("`%s` ended by an error that nobody expected", name, exc_info=exc_info)
