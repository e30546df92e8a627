"""The process that stops a server after its last user: `python -m bot.adapters.embedded FOLDER`."""

import sys
from contextlib import suppress
from pathlib import Path

from bot.adapters.embedded.cluster import watch

if __name__ == "__main__":
    with suppress(FileNotFoundError, KeyboardInterrupt):  # the folder was removed meanwhile
        watch(Path(sys.argv[1]))
