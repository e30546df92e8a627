"""curl, to the platform's pages: from the platform itself, from a worker, and from inside te-main."""

import dataclasses
import re
from urllib.parse import urlsplit

from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.timeline import Ended

_LONGS = {
    "max-time": True, "connect-timeout": True, "output": True, "write-out": True, "request": True, "header": True,
    "silent": False, "show-error": False, "insecure": False, "fail": False, "location": False, "head": False,
    "include": False, "cacert": True, "resolve": True, "retry": True, "noproxy": True, "user-agent": True,
}  # fmt: skip
_PORTS = {"http": 80, "https": 443}
_REASONS = {200: "OK", 301: "Moved Permanently", 302: "Found", 500: "Internal Server Error", 502: "Bad Gateway"}


@program("curl")
def curl(call: Call) -> Reply:
    try:
        read = options(call.words, flags="sSkfLIiqv46", values="omwXHA", longs=_LONGS)
    except Usage as usage:
        return unsupported(call, str(usage))
    if len(read.words) != 1:
        return unsupported(call, "anything but one address")
    url = urlsplit(read.words[0] if "://" in read.words[0] else f"http://{read.words[0]}")
    seconds = float(read.get("m", "max-time") or read.get("connect-timeout") or 130)
    port = url.port or _PORTS[url.scheme]
    status, body, exit, why = _fetched(call, url.hostname or "", port, url.path or "/", seconds)
    if not exit and url.scheme == "https" and not {"k", "insecure"} & read.given.keys():
        why = _distrust(call, url.hostname or "", port)
        status, body, exit = (0, "", 60) if why else (status, body, 0)
    if not exit and ("f" in read or "fail" in read) and status >= 400:
        exit, why, body = 22, f"The requested URL returned error: {status}", ""
    return Reply(exit, _out(read.given, status, body), _err(read.given, exit, why))


def _fetched(call: Call, host: str, port: int, path: str, seconds: float) -> tuple[int, str, int, str]:
    """HTTP status (0: none), body, and curl's own exit status with its words."""
    installation = call.context.installation
    address = installation.resolve(call.machine, host)
    if not address:
        return 0, "", 6, f"Could not resolve host: {host}"
    if (trouble := _connected(call, host, port, seconds)) is not None:
        exit, why = trouble
        return 0, "", exit, why
    if port == 8800:
        return 200, "<!DOCTYPE html><title>Replicated</title>", 0, ""
    if port == 80:
        return 301, "", 0, ""
    status, body = installation.app.page(path)
    return status, body, 0, ""


def _distrust(call: Call, host: str, port: int) -> str:
    """Why the certificate is not trusted here: a build image knows other authorities than the machine."""
    tls, inside = call.context.installation.tls, call.context.inside
    in_image = inside is not None and inside.image.startswith("travis:")
    return tls.complaint(port, host, tls.in_images if in_image else tls.on_hosts)


def _connected(call: Call, host: str, port: int, seconds: float) -> tuple[int, str] | None:
    """curl's exit status and words when no connection comes about."""
    timeline, context = call.machine.timeline, call.context
    end = timeline.now() + seconds
    limited = dataclasses.replace(context, ended=lambda: context.ended() or timeline.now() >= end)
    try:
        answer = context.installation.dial(limited, host, port)
        if not isinstance(answer, Reply) and port in call.machine.proxied:
            timeline.pause(seconds, limited.ended)  # taken, and nothing is said
    except Ended:
        if timeline.now() < end:
            raise
        return 28, f"Connection timed out after {int(seconds * 1000)} milliseconds"
    if isinstance(answer, Reply):
        silent = "timed out" in answer.err
        return (28, "Connection timed out") if silent else (7, f"Failed to connect to {host} port {port}: refused")
    return None


def _out(given: dict[str, list[str]], status: int, body: str) -> str:
    form = (given.get("w") or given.get("write-out") or [""])[-1]
    kept = "" if {"o", "output"} & given.keys() else body
    if {"I", "head", "i", "include"} & given.keys() and status:
        kept = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n\r\n" + ("" if {"I", "head"} & given.keys() else kept)
    fields = {"http_code": f"{status:03}", "response_code": f"{status:03}", "time_total": "0.031", "remote_ip": ""}
    form = form.replace("\\n", "\n").replace("\\t", "\t")
    return kept + re.sub(r"%\{(\w+)\}", lambda found: fields.get(found[1], ""), form)


def _err(given: dict[str, list[str]], exit: int, why: str) -> str:
    quiet = {"s", "silent"} & given.keys() and not {"S", "show-error"} & given.keys()
    return f"curl: ({exit}) {why}\n" if exit and not quiet else ""
