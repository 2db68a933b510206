"""Field types that all specs share."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from core.errors import RackflowError
from core.units import parse_mib


def _mib(value: Any) -> int:
    try:
        if str(value).lstrip().startswith("-"):
            raise ValueError(f"a size cannot be negative, found {value}")
        return parse_mib(value)
    except RackflowError as error:
        raise ValueError(str(error)) from error


Name = Annotated[
    str, Field(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", description="lower case, digits, hyphens")
]
SizeMib = Annotated[
    int,
    BeforeValidator(_mib),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}],
                    "description": 'MiB, or text such as "512MiB" or "10GiB"'}),
]  # fmt: skip
Labels = dict[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=255)]]


class Spec(BaseModel):
    """A spec: unknown fields are errors, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


S = TypeVar("S", bound=Spec)


def read_spec(model: type[S], data: Any, path: str) -> tuple[S | None, list[dict[str, str]]]:
    """Return the spec and no errors, or None and every error's field (path.field) and message."""
    try:
        return (data if isinstance(data, model) else model.model_validate(data)), []
    except ValidationError as error:
        from blueprints.problems import message  # here: it needs a reader of YAML, and few requests are wrong

        wrong = error.errors(include_url=False)
        return None, [
            {"field": ".".join([path, *map(str, one["loc"])]), "message": message(one, model)} for one in wrong
        ]
