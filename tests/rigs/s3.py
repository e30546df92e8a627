"""An S3 on loopback: moto's server, in this process, empty at the beginning."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from moto.moto_api._internal.models import moto_api_backend
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

ACCOUNT = "123456789012"
BUCKET = "backups"


@dataclass(frozen=True)
class S3:
    """Where it is, and the variables by which its clients find it."""

    url: str
    port: int

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def keys(self) -> list[str]:
        return sorted(s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys)

    def parts(self, key: str) -> int:
        return int(s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys[key].etag.strip('"').rpartition("-")[2])

    def uploads(self) -> int:
        """That were begun and neither finished nor aborted."""
        return len(s3_backends[ACCOUNT]["aws"].buckets[BUCKET].multiparts)


@contextmanager
def s3() -> Iterator[S3]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        moto_api_backend.reset()
        s3_backends[ACCOUNT]["aws"].create_bucket(BUCKET, "us-east-1")
        yield S3(f"s3://{BUCKET}", server.get_host_and_port()[1])
    finally:
        server.stop()
