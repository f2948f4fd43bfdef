"""Settings of commands: frozen configs, what of them makes a run what it is, and what all share.

A field declared with `aside` says where a run lies or how it is started, not what it is: it stands
neither in ``config.json`` nor in the hash that names the default folder.
"""

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import tyro

from imp_rg.config import require, require_choice

T = TypeVar("T")

Device = Literal["auto", "cpu", "gpu"]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""``--name`` sets it; there is no ``--no-name``."""


def aside(default: T) -> T:
    """A default of a setting that is no part of what a run is. House definition."""
    return dataclasses.field(default=default, metadata={"aside": True})


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Makes a class a frozen config; ``--help`` begins with its own fields, inherited ones last."""
    made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields, own = made.__dataclass_fields__, cls.__dict__.get("__annotations__", {})
    # A stable sort; all fields go by keyword, so their order is that of --help alone.
    made.__dataclass_fields__ = dict(sorted(fields.items(), key=lambda item: item[0] not in own))
    return made


@settings
class FolderSettings:
    """Where results go.

    Attributes:
      out: Folder of the results; by default below runs, by command and settings.
      fresh: Throw away what it holds.
    """

    out: Path | None = aside(None)
    fresh: Flag = aside(False)


@settings
class ReadingSettings(FolderSettings):
    """What reads flows.

    Attributes:
      ci_level: Coverage of the intervals over seeds.
    """

    ci_level: float = 0.95

    def __post_init__(self):
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)


@settings
class RunSettings(ReadingSettings):
    """What runs IMP.

    Attributes:
      seeds: Number of replicates.
      levels: Last level; levels 0 to this one are run.
      device: Where to compute.
      deterministic: Bit-equal reruns on GPU, slower.
    """

    seeds: int = 3
    levels: int = 12
    device: Device = "auto"
    deterministic: Flag = False

    def __post_init__(self):
        super().__post_init__()
        require(self.seeds >= 1, "seeds", "must be at least 1", self.seeds)
        require_choice("device", self.device, Device)


def identity(config: Any) -> dict[str, Any]:
    """Every setting that makes a run what it is, in JSON types.

    Nested settings whose flags have no prefix are laid out flat, as their flags are; a path is
    absolute.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("aside"):
            continue
        if dataclasses.is_dataclass(value):
            is_flat = tyro.conf.OmitArgPrefixes in getattr(hints[field.name], "__metadata__", ())
            nested = identity(value)
            found |= nested if is_flat else {field.name: nested}
        else:
            found[field.name] = str(value.absolute()) if isinstance(value, Path) else value
    return found


def narrowed(config: Any, kind: type[T], **changes: Any) -> T:
    """The settings that a config shares with another kind, as that kind. House definition.

    Args:
      config: Settings of a study.
      kind: Settings of what it runs.
      **changes: What the study decides itself.
    """
    there = {field.name for field in dataclasses.fields(config)}
    names = {field.name for field in dataclasses.fields(typing.cast(Any, kind))} & there
    return kind(**{name: getattr(config, name) for name in names} | changes)
