"""SQL for an installation's databases: queries that only read, statements that are committed once or not at all, and
dumps with the rows of their snapshots.
"""

from bot.adapters.database.database import Database
from bot.adapters.database.dumps import Dumps
from bot.adapters.database.dumps_inside import DumpsInside
from bot.adapters.database.location import Location, Way

__all__ = ["Database", "Dumps", "DumpsInside", "Location", "Way"]
