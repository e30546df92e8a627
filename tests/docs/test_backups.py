"""What docs/backups.md says of a restore by hand is what a plan and an answer say, and what is played in
tests/adapters/test_restore_by_hand.py.
"""

from pathlib import Path

from bot.core import restore
from bot.core.target import Role, Site, Target

PAGE = Path(__file__).parents[2] / "docs/backups.md"
HOST = Target("platform-1", Role.PLATFORM, "prod", "HOST")
OBJECTS = {
    "data": "data-platform-1.tar.zst",
    "databases": "database-main.dump",
    "key": "encryption-key.bin",
    "redis": "redis.rdb",
    "rabbitmq": "rabbitmq.json",
    "settings": "app-config-platform-1.json params-platform-1.json",
}


def procedure() -> str:
    """The page's own: of a running platform, with Debian's age, each object in the folder where one stands."""
    held = [
        restore.Held(kind, name.partition(".")[0], f"{name}.age", live=True)
        for kind, names in OBJECTS.items()
        for name in names.split()
    ]
    return restore.script([*restore.whole(held, restore.Way(Site("prod", "", "2.2", (HOST,)), HOST, restore.AGE))])


def test_the_page_has_the_procedure() -> None:
    assert f"```sh\n{procedure()}\n```" in PAGE.read_text()
