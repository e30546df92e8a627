"""How deep every queue of Sidekiq is, and what waits in the database, by one order."""

from bot.core.handler import Steps, job
from bot.core.look import Look
from handlers.toolbox import jobs, sidekiq


@job("sidekiq statistics", says="Tell how deep Sidekiq's queues are, and which jobs and syncs wait")
def sidekiq_statistics(steps: Steps, look: Look) -> str:
    queues = steps.step("queues", lambda: str(sidekiq.depths(look)))
    steps.say(f"Sidekiq's queues, deepest first:\n{queues}")
    sets = steps.step("sets", lambda: _sets(look))
    steps.say(sets)
    states = steps.step("states", lambda: _states(look))
    steps.say(f"Jobs in the database that have not ended:\n{states}")
    return f"{sets} {len(queues.splitlines())} queues."


def _sets(look: Look) -> str:
    under = sidekiq.prefix(look)
    sizes = {name: look(sidekiq.set_size(under, name)) for name in ("retry", "schedule", "dead")}
    alive = len(sidekiq.living(look))
    return f"{alive} Sidekiq processes; {', '.join(f'{count} in {name}' for name, count in sizes.items())}."


def _states(look: Look) -> str:
    return (
        "\n".join(f"{each.state} on {each.queue or 'no queue yet'}: {each.jobs}" for each in look(jobs.standings()))
        or "none"
    )
