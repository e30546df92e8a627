"""A certificate of its own making, for servers on loopback: it is for the name `localhost`, and not for its address."""

import subprocess
from pathlib import Path


def localhost(folder: Path) -> tuple[Path, Path]:
    """The certificate and its key, as files."""
    certificate, key = folder / "certificate", folder / "key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return certificate, key
