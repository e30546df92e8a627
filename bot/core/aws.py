"""Calls of AWS' own API, as values: what reads is a question, what writes is a change.

Which account and region is meant is the installation's configuration, and whose credentials is AWS' own business.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READING = ("describe_", "get_", "list_")


@dataclass(frozen=True)
class AwsCall:
    """One call, such as `describe_security_groups` of `ec2`; its parameters are JSON text, in one form for one call.

    The answer is an `Output`: JSON when AWS did it, exit 1 and the reason when it refused, exit None when nobody knows.
    """

    service: str
    operation: str
    parameters: str = "{}"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", self.service) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.operation):
            raise ValueError(f"`{self.service} {self.operation}` is no call of AWS' API")
        if not isinstance(json.loads(self.parameters), dict):
            raise ValueError("the parameters of a call are a JSON object")

    @property
    def reads(self) -> bool:
        """Does it change nothing?"""
        return self.operation.startswith(READING)

    def arguments(self) -> dict[str, Any]:
        return dict(json.loads(self.parameters))

    def __str__(self) -> str:
        """As somebody types it with AWS' own command line."""
        return f"aws {self.service} {self.operation.replace('_', '-')} --cli-input-json '{self.parameters}'"


def aws(service: str, operation: str, parameters: Mapping[str, Any]) -> AwsCall:
    """A call; the same parameters in another order are the same call."""
    text = json.dumps(parameters, sort_keys=True)
    if "'" in text:
        raise ValueError("a parameter of a call may hold no quote")  # it is shown for people to copy
    return AwsCall(service, operation, text)
