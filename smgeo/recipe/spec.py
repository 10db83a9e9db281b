"""The base of all specs: frozen, unknown keys refused with their place and the nearest known key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self, TypeVar, get_args

from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from smgeo.addresses import hide
from smgeo.bounds import FIRST_DAY, LARGEST_SEED, LAST_DAY
from smgeo.errors import SmgeoError, nearest

_UNKNOWN_KEY = "unknown_key"
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
# A number that may be infinite or NaN: a missing value, the end of a range.
AnyNumber = Annotated[float, AllowInfNan(True)]
Day = Annotated[dt.date, Field(ge=FIRST_DAY, le=LAST_DAY)]


class Spec(BaseModel):
    """A frozen part of a recipe that refuses unknown keys, and numbers that are infinite or NaN where no field allows them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown(cls, values: object, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Report all unknown keys, together with what is wrong with the known ones."""
        known = list(cls.model_fields)
        if not isinstance(values, Mapping) or all(key in known for key in values):
            made = check(values)
            if isinstance(values, Mapping) and (wrong := list(_other_types(made, values))):
                raise ValidationError.from_exception_data(cls.__name__, wrong)
            return made
        found = [_unknown_key(f"unknown key {k!r}; {nearest(str(k), known)}", values) for k in values if k not in known]
        try:
            check({key: value for key, value in values.items() if key in known})
        except ValidationError as error:
            found += map(_again, error.errors())
        raise ValidationError.from_exception_data(cls.__name__, found)


SpecType = TypeVar("SpecType", bound=Spec)


def parse_spec(spec: type[SpecType], values: Mapping[str, object], where: str) -> SpecType:
    """Check the values of a recipe or of a part of one.

    Raises
    ------
    SmgeoError
        Naming each key that is wrong, its place, and what is needed there.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        raise SmgeoError(f"{where}: " + "; ".join(describe_errors(error, values))) from None
    except UnicodeError as error:  # pydantic cannot say what is wrong with half of a character
        raise SmgeoError(f"{where}: a text is not Unicode ({error}); correct it") from None


def known_kind(*specs: type[Spec]) -> BeforeValidator:
    """Return a validator that refuses a mapping without `kind`, or whose `kind` none of these specs has."""
    known = [k for s in specs for k in get_args(s.model_fields["kind"].annotation)]

    def check(value: object) -> object:
        if isinstance(value, Mapping) and "kind" not in value:
            raise ValueError(f"kind is missing; known: {', '.join(sorted(known))}")
        if isinstance(value, Mapping) and value["kind"] not in known:
            raise ValueError(f"unknown kind {_shown(value['kind'])}; {nearest(str(value['kind']), known)}")
        return value

    return BeforeValidator(check)


def _other_types(made: Spec, values: Mapping[str, object]) -> Iterator[InitErrorDetails]:
    """Yield an error for each value that pydantic read as a number or a day though it is text, a number, true or false."""
    for key, given in values.items():
        found = getattr(made, key, None)
        pairs: list[tuple[object, object, tuple[int | str, ...]]] = [(given, found, (key,))]
        if isinstance(given, list | tuple) and isinstance(found, list | tuple) and len(given) == len(found):
            pairs = [(g, f, (key, i)) for i, (g, f) in enumerate(zip(given, found, strict=True))]
        for one, read, loc in pairs:
            if type(read) in (int, float) and isinstance(one, bool | str | bytes):
                yield InitErrorDetails(type="int_type" if type(read) is int else "float_type", loc=loc, input=one)
            elif type(read) is dt.date and isinstance(one, int | float | bytes):
                yield InitErrorDetails(type="date_type", loc=loc, input=one)


def _unknown_key(problem: str, found: object, loc: tuple[int | str, ...] = ()) -> InitErrorDetails:
    kind = PydanticCustomError(_UNKNOWN_KEY, "{problem}", {"problem": problem})
    return InitErrorDetails(type=kind, loc=loc, input=found)


def _again(error: ErrorDetails) -> InitErrorDetails:
    """An error of pydantic in the form in which it can be raised again."""
    if error["type"] == _UNKNOWN_KEY:
        return _unknown_key(error["msg"], error["input"], error["loc"])
    return InitErrorDetails(type=error["type"], loc=error["loc"], input=error["input"], ctx=error.get("ctx", {}))


# What a recipe needs where pydantic finds an error: by the error's type, or by the first word of that.
_NEEDS = {
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number not below {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number not above {le}",
    "too_short": "{min_length} or more values",
    "too_long": "no more than {max_length} values",
    "tuple": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "date": "a date such as 2020-01-31",
}


_Place = tuple[int | str, ...]


def describe_errors(error: ValidationError, values: object) -> list[str]:
    """Return for each place with an error what is needed there and what was found."""
    at: dict[_Place, list[ErrorDetails]] = {}
    for item in error.errors(include_url=False):
        at.setdefault(_place(item, values), []).append(item)
    # A value may have several forms: an error within one form tells more than that the value has none of the others.
    inner = [p for p, items in at.items() if _own(items) or not any(len(q) > len(p) and q[: len(p)] == p for q in at)]
    out = []
    for place in inner:
        name, items = ".".join(map(str, place)), at[place]
        if _is_missing_key(items[0]):
            out.append(f"{name} is missing")
        else:
            out += [f"{name}: {problem}" if name else problem for problem in _problems(items)]
    return out


def _place(item: ErrorDetails, values: object) -> _Place:
    """The keys and positions that the recipe has itself; pydantic adds names of kinds and of types."""
    place: list[int | str] = []
    for part in item["loc"]:
        inner = _inside(values, part)
        if inner is not None:
            (values,) = inner
        if inner is not None or (_is_missing_key(item) and part == item["loc"][-1]):
            place.append(part)
    return tuple(place)


def _inside(values: object, part: int | str) -> tuple[object] | None:
    """The value at a key or a position, in a tuple of one; None if there is none."""
    if isinstance(values, Mapping):
        return (values[part],) if part in values else None
    if isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
        return (values[part],)
    return None


def _is_missing_key(item: ErrorDetails) -> bool:
    return item["type"] == "missing" and isinstance(item["loc"][-1], str)


def _own(items: Sequence[ErrorDetails]) -> list[str]:
    """Messages of smgeo's own validators."""
    own = [i["msg"].removeprefix("Value error, ") for i in items if i["type"] in ("value_error", _UNKNOWN_KEY)]
    return list(dict.fromkeys(own))


def _problems(items: Sequence[ErrorDetails]) -> list[str]:
    if own := _own(items):
        return own
    found, needs = items[0]["input"], list(dict.fromkeys(map(_need, items)))
    lacking = [last for i in items if i["type"] == "missing" and isinstance(last := i["loc"][-1], int)]
    if lacking:  # of a list of a given length
        needs = [f"{max(lacking) + 1} values"]
    hint = ""
    if needs == ["a list"] and isinstance(found, str | int | float | dt.date):
        hint = f"; write [{_plain(found)}]"
    elif needs == ["text"] and isinstance(found, int | float | dt.date):
        hint = "; put it in quotes"
    return [f"needs {' or '.join(needs)}; got {_shown(found)}{hint}"]


def _need(item: ErrorDetails) -> str:
    need = _NEEDS.get(item["type"]) or _NEEDS.get(item["type"].split("_")[0])
    limits = {k: f"{v:g}" if isinstance(v, float) else v for k, v in item.get("ctx", {}).items()}
    return need.format(**limits) if need else str(item["msg"])


def _shown(value: object) -> str:
    """A value as messages show it, without keys in a URL."""
    if value is None or isinstance(value, Mapping):
        return "nothing" if value is None else "a mapping"
    text = f"[{', '.join(map(_shown, value))}]" if isinstance(value, list | tuple) else None
    text = text or (repr(_plain(value)) if isinstance(value, str) else _plain(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else hide(str(value))
