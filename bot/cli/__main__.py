"""`python -m bot.cli`: the same as `opsbot`."""

from bot.cli import main

main()
