"""SQL for an installation's databases: queries that only read, statements that are committed once or not at all."""

from bot.adapters.database.database import Database
from bot.adapters.database.location import Location, Way

__all__ = ["Database", "Location", "Way"]
