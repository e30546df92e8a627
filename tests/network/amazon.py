"""An AWS on loopback: moto's server with a platform and two workers, asked by the real library."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

REGION = "eu-central-1"


@dataclass
class Amazon:
    """The platform's security group, and AWS' own client to look behind."""

    client: Any
    group: str
    workers: str
    addresses: tuple[str, ...]

    def allow(self, **rule: Any) -> None:
        self.client.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])

    def rules(self) -> list[dict[str, Any]]:
        (group,) = self.client.describe_security_groups(GroupIds=[self.group])["SecurityGroups"]
        return list(group["IpPermissions"])


@contextmanager
def serving() -> Iterator[str]:
    """moto's server, on a port of its own."""
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def account() -> Iterator[Any]:
    """AWS' own client. Credentials and the address come as they do in life: from the environment."""
    with serving() as url, pytest.MonkeyPatch.context() as environment:
        for name, value in (
            ("AWS_ENDPOINT_URL", url),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "s3cr3t-0f-aws"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ):
            environment.setenv(name, value)
        environment.delenv("AWS_PROFILE", raising=False)
        yield boto3.session.Session().client("ec2", region_name=REGION)


@pytest.fixture
def amazon(account: Any) -> Iterator[Amazon]:
    """An account that holds nothing else, and is empty again when the test is over."""
    get_backend("ec2").reset()
    yield _furnished(account)
    get_backend("ec2").reset()


def _furnished(client: Any) -> Amazon:
    vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group, workers = (
        client.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name in ("platform", "workers")
    )
    addresses = ("10.0.0.11", "10.0.0.12")
    for address in addresses:
        client.create_network_interface(SubnetId=subnet, PrivateIpAddress=address, Groups=[workers])
    return Amazon(client, group, workers, addresses)
