"""A real TLS server on loopback with whatever certificate a test makes, and a machine that asks about it for real.

    with Place(folder) as place:
        place.serve(place.signed("travis.example.com"), place.intermediate)
        place.know(tls.seen_by_builds("travis.example.com"))     # the fact's own command, its answer read by the fact

The commands are the facts' own. `sudo`, `docker` and `openssl` are stand-ins that come first on the PATH: `docker run
… curl` becomes the curl of this machine with the authorities of build images, and `openssl` the real one with the
authorities of the host; both are led to the port where the server listens.
"""

import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from types import TracebackType
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from bot.core.command import Command
from bot.core.fact import Fact
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Role, Target

T = TypeVar("T")
DOMAIN = "travis.example.com"
SECONDS = 20.0
DAY = timedelta(days=1)
SUDO = '#!/bin/bash\n[ "$1" = -n ] && shift\nexec "$@"\n'
# `-q`, `--noproxy`: nothing of the one who runs the tests may lead curl elsewhere.
DOCKER = """\
#!/bin/bash
[ "$1 $2 $3 $4 $5" = "run --rm --entrypoint curl travis:default" ] || exit 125
{before}
exec /usr/bin/curl -q --noproxy '*' --cacert {bundle} --connect-to {domain}:443:127.0.0.1:{port} "${{@:6}}"
"""
NO_IMAGE = """\
echo "docker: Error response from daemon: pull access denied for travis, repository does not exist" >&2; exit 125
"""
OPENSSL = """\
#!/bin/bash
words=("${{@/#{domain}:443/127.0.0.1:{port}}}")
exec /usr/bin/openssl "${{words[@]/#\\/etc\\/ssl\\/certs/{known}}}"
"""


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def sign(
    subject: str,
    by: Signed | None = None,
    *,
    names: Sequence[str] = (),
    authority: bool = False,
    fetch: str = "",
    begins: timedelta = -30 * DAY,
    ends: timedelta = 60 * DAY,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Signed:
    """A certificate by that authority, or by itself; `fetch` is where it says that its issuer's can be fetched."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name, now = _name(subject), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(by.certificate.subject if by else name)
    made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now + begins).not_valid_after(now + ends)
    made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    if fetch:
        place = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(fetch))
        made = made.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
    return Signed(made.sign(by.key if by else key, hashes.SHA256()), key)


def _name(text: str) -> x509.Name:
    """`Let's Encrypt/R10` is an organization and a common name."""
    organization, _, common = text.rpartition("/")
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Server:
    """Answers every request over TLS with an empty page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context: ssl.SSLContext | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="tls server", daemon=True)
        self._thread.start()

    def use(self, own: Signed, chain: Sequence[Signed]) -> None:
        file = self._folder / "served.pem"
        file.write_text("".join((own.key_pem, own.pem, *(each.pem for each in chain))))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._context = context

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                assert self._context is not None
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    if secured.recv(65536):
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Place:
    """The server, the authorities that everybody knows, and a worker that asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = sign("Trusted/Root X1", authority=True, begins=-3650 * DAY, ends=3650 * DAY)
        self.intermediate = sign("Let's Encrypt/R10", self.root, authority=True, ends=900 * DAY)
        self.in_images = [self.root]
        self.on_hosts = [self.root]
        self.image = True
        self.clock = timedelta()  # how far the worker's clock is ahead of the platform's
        self.script = ""  # why there is no renewal script on the platform, in stat's words
        self.asked: list[str] = []

    def __enter__(self) -> "Place":
        self._server = Server(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing listens any more."""
        self._server.close()

    def signed(self, *names: str, ends: timedelta = 60 * DAY, begins: timedelta = -30 * DAY) -> Signed:
        """As a public authority signs them: it says where the intermediate certificate can be fetched."""
        fetch = "http://r10.i.lencr.org/"
        return sign(names[0], self.intermediate, names=names, fetch=fetch, ends=ends, begins=begins)

    def serve(self, own: Signed, *chain: Signed) -> None:
        self._server.use(own, chain)
        self._furnish()

    def _furnish(self) -> None:
        bundle, known, bin = self.folder / "images.pem", self.folder / "known", self.folder / "bin"
        bundle.write_text("".join(each.pem for each in self.in_images))
        for each in (known, bin):
            each.mkdir(exist_ok=True)
        for number, authority in enumerate(self.on_hosts):
            (known / f"{number}.pem").write_text(authority.pem)
        subprocess.run(["/usr/bin/openssl", "rehash", known], check=True, capture_output=True, timeout=SECONDS)
        before = "" if self.image else NO_IMAGE
        port = self._server.port
        programs = {
            "sudo": SUDO,
            "docker": DOCKER.format(bundle=bundle, domain=DOMAIN, port=port, before=before),
            "openssl": OPENSSL.format(domain=DOMAIN, port=port, known=str(known).replace("/", "\\/")),
        }
        for name, text in programs.items():
            (bin / name).write_text(text)
            (bin / name).chmod(0o755)

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [self._run(target, question) for question in questions]

    def identity(self, target: Target) -> str:
        return target.address

    def know(self, fact: Fact[T]) -> T:
        """One fact, asked for real."""
        return fact.parse(self._run(Target("worker-1", Role.WORKER, "prod"), fact.question))

    def _run(self, target: Target, question: Question) -> Output:
        assert isinstance(question, Command)
        self.asked.append(str(question))
        if str(question) == "date -u +%s":
            ahead = self.clock if target.name.startswith("worker") else timedelta()
            return Output(0, f"{int((datetime.now(UTC) + ahead).timestamp())}\n")
        if "stat" in question.words and self.script:
            return Output(1, "", self.script)
        if str(question) == "ps -p 1 -o comm=":
            return Output(0, "systemd\n")
        env = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "LC_ALL": "C", "HOME": str(self.folder)}
        done = subprocess.run(
            ["bash", "-c", question.text(bound="timeout -k 2 20")],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS * 2, check=False,
        )  # fmt: skip
        return Output(done.returncode, done.stdout, done.stderr)
