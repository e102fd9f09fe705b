"""Base of every record that is read from YAML."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """Frozen, strict about keys.

    Attribute docstrings describe the fields in the documentation and the editors' schemas, which
    read them themselves: reading every source again would double what a command imports.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Named(Record):
    """A catalogue entry: one YAML file, whose stem is its name."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Lower-case name; equals the file's stem."""
    aliases: tuple[str, ...] = ()
    """Other spellings that are accepted wherever the name is."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Where the numbers come from: datasheets, papers, model cards (required)."""
    notes: str = ""
    """Anything a reader should know."""

    def __hash__(self) -> int:
        """Hash by kind and name: cheap keys for memoised pure functions (equality stays exact)."""
        return hash((type(self).__name__, self.name))

    def __eq__(self, other: Any) -> bool:
        """Equal when every field is equal; the same object is equal at once."""
        return self is other or super().__eq__(other)
