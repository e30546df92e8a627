"""AWS' API: reads for facts, and the few writes that fixes know. Credentials come by boto3's own chain.

A read may be tried again; a write is sent once, so its client has no retries, and whatever came back without AWS'
own word leaves the change in doubt.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from threading import Event as Flag
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from bot.core.aws import AwsCall
from bot.core.ports import NotSent
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Target

CONNECT, READ = 5, 15  # seconds
MOST = 1 << 18  # characters of one answer
WRITES: Final = frozenset({("ec2", "authorize_security_group_ingress")})  # all that a fix may ask for
ALREADY: Final = frozenset({"InvalidPermission.Duplicate"})  # AWS' word for: it is so already
UNSENT: Final = (  # nothing left this machine
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)


@dataclass(frozen=True)
class Access:
    """The region of an installation, and whether its security groups may be changed."""

    region: str
    write: bool = False


class Aws:
    """An asker and sender of calls, for the installations that are configured."""

    def __init__(self, installations: Mapping[str, Access]) -> None:
        self._installations = installations
        self._session = boto3.session.Session()  # it reads the description of a service once
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._guard = threading.Lock()

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        del abort  # every call has short limits of its own
        return [self._answer(target, question) for question in questions]

    def identity(self, target: Target) -> str:
        access = self._installations.get(target.installation)
        return f"AWS {access.region}" if access else ""

    def _answer(self, target: Target, question: Question) -> Answer | Unanswered:
        access = self._installations.get(target.installation)
        if access is None or not isinstance(question, AwsCall) or not question.reads:
            return Unanswered(f"this installation is not set up to ask `{question}`", "not-configured")
        try:
            said = self._send(access, question, retries=True)
        except ClientError as refused:
            return Output(1, "", _why(refused))
        except BotoCoreError as failure:  # no machine is out of reach for that, so it is an answer
            return Output(1, "", f"AWS cannot be asked: {failure}")
        return Output(0, said[:MOST], truncated=len(said) > MOST)

    def call(self, target: Target, call: AwsCall, within: timedelta) -> Output:
        """Send a write once; `within` is not longer than the client's own limits."""
        del within
        access = self._installations.get(target.installation)
        if access is None or not access.write:
            raise NotSent(f"opsbot may not change AWS for {target.installation} (aws.write), so nothing was sent")
        if (call.service, call.operation) not in WRITES:
            raise NotSent(f"`{call.service} {call.operation}` is no call that opsbot makes, so nothing was sent")
        try:
            return Output(0, self._send(access, call, retries=False))
        except UNSENT as why:
            raise NotSent(f"AWS was not reached, so nothing was sent: {why}") from why
        except ClientError as refused:
            return _refused(refused)
        except BotoCoreError as lost:
            return Output(None, "", f"AWS did not answer: {lost}")

    def _send(self, access: Access, call: AwsCall, retries: bool) -> str:
        method = getattr(self._client(call.service, access.region, retries), call.operation)
        said = method(**call.arguments())
        said.pop("ResponseMetadata", None)
        return json.dumps(said, default=str)

    def _client(self, service: str, region: str, retries: bool) -> Any:
        """Clients may be shared by threads, but not made by several at once."""
        with self._guard:
            key = (service, region, retries)
            if key not in self._clients:
                attempts = {"total_max_attempts": 3 if retries else 1, "mode": "standard"}
                config = Config(connect_timeout=CONNECT, read_timeout=READ, retries=attempts)
                self._clients[key] = self._session.client(service, region_name=region, config=config)
            return self._clients[key]


def _refused(refused: ClientError) -> Output:
    """AWS said no, which changed nothing; an error of its own (5xx) says nothing either way."""
    if refused.response.get("Error", {}).get("Code", "") in ALREADY:
        return Output(0, "the rule was there already")
    status = refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return Output(None if status >= 500 else 1, "", _why(refused))


def _why(refused: ClientError) -> str:
    error = refused.response.get("Error", {})
    return f"{error.get('Code', 'an error without a code')}: {error.get('Message', '')}".strip(": ")
