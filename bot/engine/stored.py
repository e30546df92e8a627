"""Requests as the journal stores them: clicks, questions and who said what where, to JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bot.core.approval import Click, Verdict
from bot.core.people import Actor, Place
from bot.core.request import Ask, Request


def request_to_json(request: Request) -> dict[str, Any]:
    return {**asdict(request), "ask": request.ask.value, "targets": list(request.targets)}


def request_from_json(body: Mapping[str, Any]) -> Request:
    return Request(**{**body, "ask": Ask(body["ask"]), "targets": tuple(body["targets"])})


def click_to_json(click: Click) -> dict[str, Any]:
    return {
        "approval": click.approval,
        "verdict": click.verdict.value,
        "reason": click.reason,
        "nonce": click.nonce,
        "message": click.message,
        "actor": actor_to_json(click.actor),
        "place": place_to_json(click.place),
    }


def click_from_json(body: Mapping[str, Any]) -> Click:
    return Click(
        body["approval"],
        Verdict(body["verdict"]),
        actor_from_json(body["actor"]),
        body["reason"],
        body["nonce"],
        place_from_json(body["place"]),
        body["message"],
    )


def actor_to_json(actor: Actor) -> dict[str, str]:
    return {"team": actor.team, "user": actor.user, "via": actor.via}


def actor_from_json(body: Mapping[str, str]) -> Actor:
    return Actor(body["team"], body["user"], body["via"])


def place_to_json(place: Place | None) -> dict[str, str | None] | None:
    return None if place is None else {"channel": place.channel, "thread": place.thread}


def place_from_json(body: Mapping[str, str] | None) -> Place | None:
    return None if body is None else Place(body["channel"], body["thread"])
