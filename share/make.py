"""Writes the manual pages and the shells' completions from the command line's own help.

    python share/make.py [DIRECTORY]

The results are committed below ``share/`` and installed with the wheel; a test compares them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click import shell_completion

from tenantbase import __version__
from tenantbase.main import main

PROGRAM = "tenantbase"


class Bash(shell_completion.BashComplete):
    """click's class with a script that also completes the value in ``--option=value``."""

    source_template = r"""
%(complete_func)s() {
    local IFS=$'\n' word words=() joined=
    local type value

    # Readline also splits --option=value and USER@HOST:PORT at =, @ and :. click takes the value
    # of an option as a word of its own, and USER@HOST:PORT as one word.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ $joined || $word =~ ^[:@]+$ ]]; then
            words[-1]+=$word
            [[ $word =~ ^[:@]+$ ]] && joined=yes || joined=
        elif [[ $word != = ]]; then
            words+=("$word")
        fi
    done
    [[ $word == = ]] && words+=("")

    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Zsh(shell_completion.ZshComplete):
    """click's class with a script for fpath that also completes the value in ``--option=value``.

    click's own script completes nothing the second time that it is asked.
    """

    source_template = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local type value help
    local -a lines plain described

    lines=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \
        %(complete_var)s=zsh_complete "${(Q)words[1]}" 2>/dev/null)}")

    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    for type value help in $lines; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) [[ $help == _ ]] && plain+=("$value") || described+=("$value:$help") ;;
        esac
    done
    [[ -n $described ]] && _describe -V unsorted described
    [[ -n $plain ]] && compadd -V unsorted -a plain
}

%(complete_func)s "$@"
"""


COMPLETIONS = {
    "bash-completion/completions/tenantbase": Bash,
    "zsh/site-functions/_tenantbase": Zsh,
    "fish/vendor_completions.d/tenantbase.fish": shell_completion.FishComplete,
}


def made() -> Iterator[tuple[str, str]]:
    """Each file: its path below ``share/``, and its text."""
    for context in _contexts(main, None):
        name = context.command_path.replace(" ", "-")
        yield f"man/man1/{name}.1", _page(context)
    for path, shell in COMPLETIONS.items():
        completion = shell(main, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
        # The base class's method: that of bash first runs the bash which happens to be installed.
        yield path, shell_completion.ShellComplete.source(completion).strip() + "\n"


def _contexts(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    """A command and all below it."""
    name = command.name if parent is not None else PROGRAM
    context = click.Context(command, parent, info_name=name, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _contexts(command.commands[name], context)


def _page(context: click.Context) -> str:
    """A manual page, in the macros of man(7)."""
    command = context.command
    title = context.command_path.replace(" ", "-")
    paragraphs = re.split(r"\n\s*\n", (command.help or "").strip())
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{title.upper()}" 1 "" "{PROGRAM} {__version__}" "{PROGRAM} manual"',
        ".nh",  # names of variables and addresses stay in one piece, to be searched for and copied
        ".ad l",
        ".SH NAME",
        _text(title) + r" \- " + _text(paragraphs[0].partition(".")[0]),
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(pieces),
        ".SH DESCRIPTION",
    ]
    for paragraph in paragraphs:
        lines += [".PP", _text(" ".join(paragraph.split()))]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in sorted(command.commands):
            page = _text(f"{title}-{name}")
            summary = _text(command.commands[name].get_short_help_str(1000))
            lines += [".TP", rf"\fB{page}\fR(1)", summary]
    lines.append(".SH OPTIONS")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            lines += [".TP", rf"\fB{_text(record[0])}\fR", _text(record[1])]
    if context.parent is not None:
        lines += [".SH SEE ALSO", rf"\fB{_text(_parent(context))}\fR(1)"]
    return "\n".join(lines) + "\n"


def _parent(context: click.Context) -> str:
    assert context.parent is not None
    return context.parent.command_path.replace(" ", "-")


def _text(text: str) -> str:
    """Text in which roff finds no markup. In names of options, hyphens can be searched for."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", text)


def write(directory: Path) -> None:
    for path, text in made():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
