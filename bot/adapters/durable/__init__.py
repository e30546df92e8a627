"""Durable tasks on PostgreSQL: what was spawned is carried to its end by whichever process is alive.

    durable = Durable(pool)                                        bot.core.ports.Durable
    workers = Workers(pool, carry, on_error, lease=timedelta(seconds=10), threads=16)
    workers.start() … workers.drain(grace) … workers.stop()

The engine is absurd's SQL, reached through functions of our own schema (`opsbot.claim`, `hold`, `sleep`, `wake`),
because its Python client shares one connection between all runs.
"""

from bot.adapters.durable.claim import Claim
from bot.adapters.durable.durable import Durable
from bot.adapters.durable.workers import Workers, clean_up

__all__ = ["Claim", "Durable", "Workers", "clean_up"]
