"""`sv` inside te-main: its services, as runit knows them."""

from bot.sandbox.installation.platform import Inside
from bot.sandbox.installation.programs import Call, Reply, in_te_main, program, unsupported


@program("sv", where=in_te_main)
def sv(call: Call) -> Reply:
    words = [word for word in call.words if word not in ("-v", "-w")]
    if len(words) < 2 or words[0] not in ("status", "start", "stop", "restart", "up", "down", "check"):
        return unsupported(call, " ".join(call.words))
    services = call.context.installation.app.services
    found = [(name, services.get(name.rsplit("/", 1)[-1])) for name in words[1:]]
    if words[0] not in ("status", "check"):
        call.changes()
    said = [_done(call, words[0], service) if service else _unknown(name) for name, service in found]
    return Reply(max(reply.exit for reply in said), "".join(reply.out for reply in said))


def _unknown(name: str) -> Reply:
    return Reply(1, f"fail: {name}: unable to change to service directory: file does not exist\n")


def _done(call: Call, verb: str, service: Inside) -> Reply:
    if verb in ("stop", "down", "restart"):
        service.stop()
    if verb in ("start", "up", "restart"):
        service.start()
        if not service.running:
            return Reply(1, f"timeout: down: {service.name}: 1s, normally up, want up\n")
    seconds = int(call.machine.timeline.now() - service.since)
    state = f"run: {service.name}: (pid {_pid(service)}) {seconds}s"
    if not service.running:
        state = f"down: {service.name}: {seconds}s, normally up"
    prefix = "" if verb in ("status", "check") else "ok: "
    return Reply(0 if service.running or verb in ("stop", "down", "status") else 1, f"{prefix}{state}\n")


def _pid(service: Inside) -> int:
    return 100 + sum(service.name.encode())
