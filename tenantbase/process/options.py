"""What an option is: a field of a dataclass, with its reader and its help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

PREFIX: Final = "TENANTBASE_"
"""The prefix of the environment variables."""


def option(
    parse: Callable[[str], object],
    default: object,
    metavar: str,
    text: str,
    *,
    many: bool = False,
    shown: str | None = None,
) -> Any:
    """A field that is an option.

    Args:
        parse: reads one value's text; its ValueError says what was expected.
        text: the help.
        many: the option may be repeated.
        shown: the default as help shows it, if that is not the text of ``default``.
    """
    return field(
        default=default,
        metadata={"parse": parse, "metavar": metavar, "help": text, "many": many, "shown": shown},
    )


def flag(name: str) -> str:
    """The flag of the option of this name."""
    return "--" + name.replace("_", "-")


class Unshown(ValueError):
    """A value that cannot be accepted, and is not repeated in the error: it may hold a secret."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option, as the command line and the docs need it.

    Attributes:
        name: the field of ``Config``.
        default: the default as help and docs show it; empty if there is none.
        metavar: the placeholder of its value in help; empty for a switch.
        many: it may be repeated; in the environment, its values are separated by commas.
    """

    name: str
    parse: Callable[[str], object]
    default: str
    metavar: str
    help: str
    many: bool

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return flag(self.name)

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def switch(self) -> bool:
        """Whether it takes no value on the command line."""
        return not self.metavar

    def read(self, stated: object) -> object:
        """Read the option's value from a text, from several texts, or from a switch."""
        if isinstance(stated, str):
            return self._read(stated)
        if isinstance(stated, tuple | list):
            return tuple(self._read(text.strip()) for text in stated if text.strip())
        return stated

    def _read(self, text: str) -> object:
        try:
            return self.parse(text)
        except Unshown:
            raise
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None


def options_of(config: type) -> tuple[Option, ...]:
    """The options among the fields of a dataclass."""
    options = []
    for each in fields(config):
        if not each.metadata:
            continue
        shown = each.metadata["shown"]
        if shown is None:
            plain = each.default not in (None, False, ())
            shown = f"{each.default:g}" if isinstance(each.default, float) else str(each.default)
            shown = shown if plain else ""
        known = {key: each.metadata[key] for key in ("parse", "metavar", "help", "many")}
        options.append(Option(name=each.name, default=shown, **known))
    return tuple(options)
