"""What is wrong with a configuration, one sentence for each problem, with the path of the setting in front."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bot.core.errors import Permanent

Location = Sequence[int | str]
NOT_BUILT = {  # who asks for these should not believe that they have them
    "break_glass": "opsbot has no break-glass: without another person nothing is changed",
    "canary": "opsbot starts no canary builds yet",
}
SEVERAL = 5  # keys named in a sentence; more would hide the point


class BadSettings(Permanent):
    """The configuration cannot be used. `problems` are its sentences, and `str()` is all of them, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def path_of(location: Location) -> str:
    """`("installations", 0, "name")` as `installations[0].name`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".") or "the file"


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each problem that pydantic found, as a sentence of ours; what was given is never repeated: it may be a secret."""
    problems = (each for each in error.errors(include_url=False) if not _follows(each))
    return [f"{path_of(_place(each['loc']))}: {_why(each, model)}" for each in problems]


def _follows(problem: Mapping[str, Any]) -> bool:
    """A list whose entries are wrong counts as too short as well."""
    return problem["type"] == "too_short" and bool(problem["input"])


def _place(location: Location) -> Location:
    """Without the mark that pydantic adds for a key of a mapping."""
    return [part for part in location if part != "[key]"]


def _why(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1]))
    if kind != "missing" and problem.get("input") is None:
        return "is empty; give it a value or take the line out"
    if kind == "value_error":
        return str(context["error"])
    if kind not in _SENTENCES:
        message = str(problem["msg"])
        return message[:1].lower() + message[1:]
    return _SENTENCES[kind](problem)


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "missing",
    "string_type": lambda each: "must be text" + _quotes(each["input"]),
    "invalid_key": lambda _: "is a key that is no text; put it in quotes",
    "int_type": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "model_type": lambda _: "must be a section of `key: value` lines",
    "dict_type": lambda _: "must be a section of `key: value` lines",
    "tuple_type": lambda _: "must be a list: `[a, b]`, or lines that begin with `-`",
    "too_short": lambda _: "needs at least one entry",
    "literal_error": lambda each: f"must be one of {each['ctx']['expected'].replace(' or ', ', ')}".replace("'", ""),
    "enum": lambda each: f"must be one of {each['ctx']['expected'].replace(' or ', ', ')}".replace("'", ""),
    "greater_than_equal": lambda each: f"must be at least {each['ctx']['ge']}",
    "less_than_equal": lambda each: f"must be at most {each['ctx']['le']}",
}


def _quotes(given: object) -> str:
    """YAML reads `no`, `2.2` and `2026-01-01` as something else than text."""
    return "" if isinstance(given, list | dict) else "; put it in quotes"


def _unknown(key: str, known: Sequence[str]) -> str:
    if key in NOT_BUILT:
        return f"{NOT_BUILT[key]}; take it out"
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.6):
        return f"unknown key (did you mean {near[0]}?)"
    more = ", …" if len(known) > SEVERAL else ""
    return f"unknown key (there is {', '.join(known[:SEVERAL])}{more})"


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that the section at this place may have."""
    for part in location:
        if part in (known := _by_key(model)):
            model = _model_in(known[part].annotation) or model
    return [str(key) for key in _by_key(model)]


def _by_key(model: type[BaseModel]) -> dict[int | str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
