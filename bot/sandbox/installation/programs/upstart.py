"""Upstart's commands, as Ubuntu 14.04 has them."""

from bot.sandbox.installation.programs import Call, Reply, on_host, on_upstart, program, unsupported
from bot.sandbox.installation.state import Unit

SETTLE = 60.0


@program("status", "start", "stop", "restart", where=on_upstart)
def job(call: Call) -> Reply:
    if not call.words:
        return Reply(1, err=f"{call.name}: missing job name\nTry `{call.name} --help' for more information.\n")
    unit = call.machine.units.get(call.words[0])
    if unit is None:
        return Reply(1, err=f"{call.name}: Unknown job: {call.words[0]}\n")
    if call.name == "status":
        return Reply(out=_line(unit))
    if not call.root:
        why = 'Rejected send message, 1 matched rules; type="method_call", interface="com.ubuntu.Upstart0_6.Job"'
        return Reply(1, err=f"{call.name}: {why}\n")
    return _change(call, unit)


def _change(call: Call, unit: Unit) -> Reply:
    if call.name == "start" and unit.active != "inactive":
        return Reply(1, err=f"start: Job is already running: {unit.name}\n")
    if call.name != "start" and unit.active == "inactive":
        return Reply(1, err=f"{call.name}: Unknown instance: \n")
    call.changes()
    {"start": Unit.start, "stop": Unit.stop, "restart": Unit.restart}[call.name](unit)
    goal = "inactive" if call.name == "stop" else "active"
    call.until(lambda: unit.active == goal and not unit.then_start and (goal == "inactive" or bool(unit.main)), SETTLE)
    return Reply(out=_line(unit))


def _line(unit: Unit) -> str:
    if unit.active == "inactive":
        return f"{unit.name} stop/waiting\n"
    if unit.active == "deactivating":
        goal = "start" if unit.then_start or unit.respawns else "stop"
        return f"{unit.name} {goal}/{'post-stop' if unit.sub == 'stop-post' else 'killed'}\n"
    process = f", process {unit.main.pid}" if unit.main else ""
    return f"{unit.name} start/running{process}\n"


@program("travis-worker", where=on_upstart)
def travis_worker(call: Call) -> Reply:
    if call.words not in (("-v",), ("--version",)):
        return unsupported(call, " ".join(call.words))
    return Reply(out="travis-worker v=v4.6.1 rev=3d8ee1c d=2019-02-19T17:28:28+0000 go=go1.11.5\n")


@program("initctl", where=on_upstart)
def initctl(call: Call) -> Reply:
    if call.words == ("version",):
        return Reply(out="init (upstart 1.12.1)\n")
    if call.words and call.words[0] in ("status", "start", "stop", "restart"):
        reply = call.run(call.words)
        return Reply(reply.exit, reply.out, reply.err.replace(f"{call.words[0]}:", "initctl:", 1))
    return unsupported(call, " ".join(call.words))


@program("service", where=on_host)
def service(call: Call) -> Reply:
    """Works on both: it hands over to the init system that the machine has."""
    if len(call.words) != 2 or call.words[1] not in ("status", "start", "stop", "restart"):
        return unsupported(call, " ".join(call.words))
    name, verb = call.words
    return call.run(("systemctl", verb, name) if call.machine.systemd else (verb, name))
