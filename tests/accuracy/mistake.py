"""A mistake made on purpose in a parser, to see that the figures notice one."""

from collections.abc import Iterator
from contextlib import contextmanager

from bot.core.question import Output, Response
from handlers.toolbox import rabbitmq


@contextmanager
def the_last_consumer_is_overlooked() -> Iterator[None]:
    """As if the loop over the rows of the list of consumers ended one too early."""
    right = rabbitmq._consumers

    def wrong(said: Output | Response) -> tuple[rabbitmq.Consumer, ...]:
        return right(said)[:-1]

    rabbitmq._consumers = wrong
    try:
        yield
    finally:
        rabbitmq._consumers = right
