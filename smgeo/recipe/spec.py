"""The base of all specs: frozen, unknown keys refused with their place and the nearest known key."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from smgeo.errors import SmgeoError, nearest


class Spec(BaseModel):
    """A frozen part of a recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            known = [f.alias or n for n, f in cls.model_fields.items()]
            for key in values:
                if key not in known:
                    raise ValueError(f"unknown key {key!r}; {nearest(str(key), known)}")
        return values


SpecType = TypeVar("SpecType", bound=Spec)


def parse_spec(spec: type[SpecType], values: Mapping[str, Any], where: str) -> SpecType:
    """Check the values of a recipe or of a part of one.

    Raises
    ------
    SmgeoError
        Naming the first few keys that are wrong, where they are, and what is known there.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        problems = _problems(error.errors(include_url=False), values)
        raise SmgeoError(f"{where}: " + "; ".join(problems[:4])) from None


def known_kind(*specs: type[Spec]) -> BeforeValidator:
    """Refuses a mapping whose `kind` is none of these specs', or that says none."""
    known = [k for s in specs for k in get_args(s.model_fields["kind"].annotation)]

    def check(value: Any) -> Any:
        if isinstance(value, Mapping) and "kind" not in value:
            raise ValueError(f"kind is missing; known: {', '.join(sorted(known))}")
        if isinstance(value, Mapping) and value["kind"] not in known:
            raise ValueError(f"unknown kind {_shown(value['kind'])}; {nearest(str(value['kind']), known)}")
        return value

    return BeforeValidator(check)


# What pydantic finds, in the words of a recipe: by its error's type, or by the first word of that.
_NEEDS = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number not below {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number not above {le:g}",
    "too_short": "{min_length} or more values",
    "too_long": "no more than {max_length} values",
    "tuple": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2020-01-31",
}


_Place = tuple[int | str, ...]


def _problems(errors: Sequence[Any], values: Any) -> list[str]:
    """For each place what is needed there and what was found."""
    at: dict[_Place, list[Any]] = {}
    for item in errors:
        at.setdefault(_place(item, values), []).append(item)
    # Of a value that may have several forms, what is wrong within one form says more than that it is none of the others.
    inner = [p for p in at if not any(len(q) > len(p) and q[: len(p)] == p for q in at)]
    out = []
    for place in inner:
        name, items = ".".join(map(str, place)), at[place]
        if _is_missing_key(items[0]):
            out.append(f"{name} is missing")
        else:
            out.append(f"{name}: {_problem(items)}" if name else _problem(items))
    return out


def _place(item: Any, values: Any) -> _Place:
    """The keys and positions that the recipe has itself; pydantic adds names of kinds and of types."""
    place: list[int | str] = []
    for part in item["loc"]:
        if isinstance(values, Mapping):
            there = part in values
        else:
            there = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if there:
            values = values[part]
        if there or (_is_missing_key(item) and part == item["loc"][-1]):
            place.append(part)
    return tuple(place)


def _is_missing_key(item: Any) -> bool:
    return item["type"] == "missing" and isinstance(item["loc"][-1], str)


def _problem(items: Sequence[Any]) -> str:
    own = [i["msg"].removeprefix("Value error, ") for i in items if i["type"] == "value_error"]
    if own:
        return str(own[0])
    found, needs = items[0]["input"], list(dict.fromkeys(map(_need, items)))
    if any(i["type"] == "missing" for i in items):  # of a list of a given length
        needs = [f"{max(i['loc'][-1] for i in items if i['type'] == 'missing') + 1} values"]
    hint = ""
    if needs == ["a list"] and isinstance(found, str | int | float | dt.date):
        hint = f"; write [{_plain(found)}]"
    elif needs == ["text"] and isinstance(found, int | float | dt.date):
        hint = "; put it in quotes"
    return f"needs {' or '.join(needs)}; got {_shown(found)}{hint}"


def _need(item: Any) -> str:
    need = _NEEDS.get(item["type"]) or _NEEDS.get(item["type"].split("_")[0])
    return need.format(**item.get("ctx", {})) if need else str(item["msg"])


def _shown(value: Any) -> str:
    """A value as messages show it, without what follows `?` in a URL, where keys may stand."""
    if value is None or isinstance(value, Mapping):
        return "nothing" if value is None else "a mapping"
    text = f"[{', '.join(map(_shown, value))}]" if isinstance(value, list | tuple) else None
    text = text or (repr(_plain(value)) if isinstance(value, str) else _plain(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else re.sub(r"(://[^\s?]*\?)\S+", r"\1...", str(value))
