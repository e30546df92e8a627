"""A whole installation on one laptop: real SSH servers, simulated machines, nothing of it reaches the host.

running = start(folder)
running.inject("worker-2 lost RabbitMQ")
"""

from bot.sandbox.installation.faults import DEFAULT, FAULTS, Fault, NoSuchFault
from bot.sandbox.installation.installation import SHAPES, Installation, Shape, settled
from bot.sandbox.installation.received import Received
from bot.sandbox.installation.running import Running, start

__all__ = [
    "DEFAULT", "FAULTS", "SHAPES", "Fault", "Installation", "NoSuchFault", "Received", "Running", "Shape",
    "settled", "start",
]  # fmt: skip
