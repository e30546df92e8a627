"""openssl, as far as it looks at a server's certificate, and the vendor's script that renews one."""

from bot.sandbox.installation.programs import Call, Reply, on_host, program, unsupported
from bot.sandbox.installation.state import Container, Machine
from bot.sandbox.installation.tls import WORDS, Certificate, from_pem

SCRIPT = "/home/ubuntu/renew-certs.sh"
TLS_PORTS = (443, 8800, 4567)
_LONGS = ("connect", "servername", "CApath", "CAfile")
NO_TLS = """\
CONNECTED(00000005)
---
no peer certificate available
---
No client certificate CA names sent
---
SSL handshake has read 5 bytes and written 315 bytes
Verification: OK
---
"""
HANDSHAKE = """\
CONNECTED(00000005)
---
Certificate chain
{chain}---
Server certificate
{pem}subject={subject}

issuer={issuer}

---
SSL handshake has read 3563 bytes and written 390 bytes
{verification}
---
    Verify return code: {code} ({words})
---
"""


@program("openssl")
def openssl(call: Call) -> Reply:
    verbs = {"s_client": _s_client, "x509": _x509}
    verb = verbs.get(call.words[0]) if call.words else None
    return verb(call) if verb else unsupported(call, " ".join(call.words))


def _s_client(call: Call) -> Reply:
    """A handshake; whoever signed the certificate, it goes on to the end and says what it thinks of it."""
    words = dict(zip(call.words[1::2], call.words[2::2], strict=True))
    if not words.keys() <= {f"-{name}" for name in _LONGS} or "-connect" not in words:
        return unsupported(call, " ".join(call.words))
    host, _, port = words["-connect"].rpartition(":")
    installation = call.context.installation
    if isinstance(installation.dial(call.context, host.strip("[]"), int(port)), Reply):
        return Reply(1, err="connect: Connection refused\nconnect:errno=111\n")
    if installation.answer(call.machine, int(port), "a TLS client's hello") is None:
        call.pause(float("inf"))
    if int(port) not in TLS_PORTS:
        return Reply(1, NO_TLS, "error:1408F10B:SSL routines:ssl3_get_record:wrong version number\n")
    return _shaken(call, installation.tls.served[int(port)], int(port))


def _shaken(call: Call, certificate: Certificate, port: int) -> Reply:
    tls = call.context.installation.tls
    errors = tls.errors(port, tls.on_hosts)
    code = errors[-1] if errors else 0
    said = HANDSHAKE.format(
        chain="".join(f" {no} s:{subject}\n   i:{issuer}\n" for no, (subject, issuer) in enumerate(certificate.sent)),
        pem=certificate.pem(),
        subject=certificate.subject,
        issuer=certificate.issuer,
        verification=f"Verification error: {WORDS[code]}" if code else "Verification: OK",
        code=code,
        words=WORDS[code],
    )
    wrong = "".join(f"verify error:num={each}:{WORDS[each]}\nverify return:1\n" for each in errors)
    return Reply(out=said, err=f"depth=0 {certificate.subject}\n{wrong}verify return:1\nDONE\n")


# ---------------------------------------------------------------- x509


def _x509(call: Call) -> Reply:
    certificate = from_pem(call.stdin)
    if certificate is None:
        return Reply(1, err="unable to load certificate\nPEM_read_bio:no start line:../crypto/pem/pem_lib.c:745\n")
    words = list(call.words[1:])
    said, status = "", 0
    while words:
        word = words.pop(0)
        if word == "-checkend":
            ends = certificate.ends < call.machine.timeline.now() + float(words.pop(0))
            said += f"Certificate will {'' if ends else 'not '}expire\n"
            status = int(ends)
        elif word in _FIELDS:
            said += _FIELDS[word].format(**_fields(call, certificate))
        elif word != "-noout":
            return unsupported(call, f"x509 {word}")
    return Reply(status, said)


_TEXT = """\
Certificate:
    Data:
        Version: 3 (0x2)
        Signature Algorithm: sha256WithRSAEncryption
        Issuer: {issuer}
        Validity
            Not Before: {begins}
            Not After : {ends}
        Subject: {subject}
        X509v3 extensions:
            X509v3 Subject Alternative Name:\x20
                {names}
{fetch}"""
_FIELDS = {
    "-text": _TEXT,
    "-subject": "subject={subject}\n",
    "-issuer": "issuer={issuer}\n",
    "-startdate": "notBefore={begins}\n",
    "-enddate": "notAfter={ends}\n",
    "-dates": "notBefore={begins}\nnotAfter={ends}\n",
}
_FETCH = """\
            Authority Information Access:\x20
                CA Issuers - URI:http://r10.i.lencr.org/
"""


def _fields(call: Call, certificate: Certificate) -> dict[str, str]:
    tls = call.context.installation.tls
    begins, ends = (f"{tls.date(at):%b %e %H:%M:%S %Y} GMT" for at in (certificate.begins, certificate.ends))
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "begins": begins,
        "ends": ends,
        "names": ", ".join(f"DNS:{name}" for name in certificate.names),
        "fetch": _FETCH if certificate.fetch else "",
    }


# ---------------------------------------------------------------- renewal


def _has_script(machine: Machine, inside: Container | None) -> bool:
    return on_host(machine, inside) and SCRIPT in machine.files


@program("renew-certs.sh", where=_has_script)
def renew(call: Call) -> Reply:
    """Stops the app, lets certbot renew the certificate, and starts the app."""
    if call.words or not call.root:
        return unsupported(call, "words, or an ordinary user")
    call.changes()
    installation = call.context.installation
    installation.app.stop()
    call.until(lambda: installation.app.state == "stopped", 600)
    call.pause(20)
    installation.tls.serve(443, installation.tls.good(90))
    installation.app.start()
    call.until(lambda: installation.app.state != "starting", 700)
    return Reply(out="Congratulations, all renewals succeeded.\n")
