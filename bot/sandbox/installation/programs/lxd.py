"""The client of LXD, where the builds of a snap of travis-worker run."""

from bot.sandbox.installation.programs import Call, Reply, program, unsupported, with_lxd

LIST = ("-c", "n", "--format", "csv")
SOCKET = "/var/snap/lxd/common/lxd/unix.socket"


@program("lxc", where=with_lxd)
def lxc(call: Call) -> Reply:
    """`lxc list NAME -c n --format csv`: the names that begin so, one a line."""
    verb, *words = call.words or ("",)
    if verb != "list" or tuple(words[1:]) != LIST:
        return unsupported(call, " ".join(call.words))
    if not call.root:
        return Reply(1, err=f"Error: Get http://unix.socket/1.0: dial unix {SOCKET}: connect: permission denied\n")
    names = [each.name for each in call.machine.containers if each.name.startswith(words[0])]
    return Reply(out="".join(f"{name}\n" for name in names))
