"""The machine itself: who one is, what time it is, what it runs, and turning it off and on."""

import re
from datetime import UTC

from bot.sandbox.installation.programs import Call, Reply, on_host, program, unsupported


@program("id", "whoami")
def id(call: Call) -> Reply:
    user = call.context.user
    uid = call.machine.users.get(user, 0)
    if call.name == "whoami" or call.words == ("-un",):
        return Reply(out=f"{user}\n")
    if call.words == ("-u",):
        return Reply(out=f"{uid}\n")
    if call.words and call.words[-1] in call.machine.users:
        user, uid = call.words[-1], call.machine.users[call.words[-1]]
    elif call.words:
        return Reply(1, err=f"id: '{call.words[-1]}': no such user\n")
    return Reply(out=f"uid={uid}({user}) gid={uid}({user}) groups={uid}({user})\n")


@program("date")
def date(call: Call) -> Reply:
    now = call.machine.timeline.date(call.machine.timeline.now() + call.machine.clock).astimezone(UTC)
    forms = [word[1:] for word in call.words if word.startswith("+")]
    if not forms:
        return Reply(out=now.strftime("%a %b %e %H:%M:%S UTC %Y\n"))
    form = forms[0].replace("%N", f"{now.microsecond * 1000:09}").replace("%s", str(int(now.timestamp())))
    return Reply(out=now.strftime(form) + "\n")


@program("sleep")
def sleep(call: Call) -> Reply:
    call.pause(sum(float(word.rstrip("s")) for word in call.words))
    return Reply()


@program("uname")
def uname(call: Call) -> Reply:
    kernel = "4.15.0-213-generic" if call.machine.systemd else "3.13.0-170-generic"
    known = {(): "Linux", ("-r",): kernel, ("-n",): call.machine.name, ("-m",): "x86_64"}
    said = known.get(call.words)
    return Reply(out=f"{said}\n") if said else unsupported(call, " ".join(call.words))


@program("dmesg", where=on_host)
def dmesg(call: Call) -> Reply:
    lines = [line for line in call.machine.journal if line.unit == "kernel" and line.at >= call.machine.booted]
    return Reply(out="".join(f"[{line.at - call.machine.booted:12.6f}] {line.text}\n" for line in lines))


@program("nproc")
def nproc(_call: Call) -> Reply:
    return Reply(out="4\n")


@program("free")
def free(call: Call) -> Reply:
    """In MiB, whatever is asked for: that is what `free -m` is for."""
    machine = call.machine
    used, cached = max(machine.memory - machine.available - 340, 0), min(4206, machine.available // 2)
    numbers = (machine.memory, used, machine.memory - used - cached, 25, cached, machine.available)
    head = "              total        used        free      shared  buff/cache   available\n"
    memory = "Mem:   " + "".join(f"{number:>12}" for number in numbers) + "\n"
    return Reply(out=f"{head}{memory}Swap:             0           0           0\n")


@program("shutdown", "reboot", where=on_host)
def shutdown(call: Call) -> Reply:
    if not call.root:
        systemd = "Failed to set wall message, ignoring: Interactive authentication required.\n"
        return Reply(1, err=systemd if call.machine.systemd else f"{call.name}: Need to be root\n")
    words = list(call.words)
    if words == ["-c"]:
        return _cancel(call)
    if call.name == "shutdown" and "-r" not in words:
        return unsupported(call, "turning a machine off")
    rest = [word for word in words if word not in ("-r", "-f", "--no-wall")]
    minutes = 0.0 if call.name == "reboot" else _minutes(rest[0] if rest else "+1")
    if minutes is None:
        return Reply(1, err=f"Failed to parse time specification: {rest[0]}\n")
    call.changes()
    installation, machine = call.context.installation, call.machine
    if minutes == 0:
        installation.reboot(machine)
        return Reply()
    installation.shutdowns[machine.name] = machine.timeline.after(minutes * 60, lambda: installation.reboot(machine))
    when = machine.timeline.date(machine.timeline.now() + minutes * 60).strftime("%a %Y-%m-%d %H:%M:%S UTC")
    return Reply(err=f"Shutdown scheduled for {when}, use 'shutdown -c' to cancel.\n")


def _minutes(text: str) -> float | None:
    if text == "now":
        return 0.0
    found = re.fullmatch(r"\+?(\d+)", text)
    return float(found[1]) if found else None


def _cancel(call: Call) -> Reply:
    call.changes()
    event = call.context.installation.shutdowns.pop(call.machine.name, None)
    if event is not None:
        event.cancelled = True
    return Reply()
