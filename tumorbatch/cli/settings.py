"""Options of a command from a configuration file and from the environment.

The command line wins over the environment, that over the file, and that over the defaults. click itself
keeps this order; here are the names, and the refusal of what is misspelt.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tumorbatch.atomic import write_bytes
from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.files import printable, read_regular

PREFIX = "TUMORBATCH_"
_MAX_BYTES = 1 << 20
_NOT_IN_ENVIRONMENT = ("save_config", "help", "version")
_NOT_IN_FILE = ("config_file", *_NOT_IN_ENVIRONMENT)


def option_name(option: click.Parameter) -> str:
    """Return the name of an option as it is typed, without the dashes: `batch-size`."""
    return max(option.opts, key=len).lstrip("-")


def options_of(command: click.Command, but: Sequence[str] = _NOT_IN_FILE) -> dict[str, click.Option]:
    """Return {name as typed: option} of what a file may set, or of all `but` these parameters."""
    return {
        option_name(each): each
        for each in command.params
        if isinstance(each, click.Option) and each.name not in but
    }


def words_of(context: click.Context) -> list[str]:
    """Return the command of a context as words: `["experiment", "clahe"]`."""
    words: list[str] = []
    while context.parent is not None:
        words.insert(0, context.info_name or "")
        context = context.parent
    return words


def name_variables(group: click.Group, words: Sequence[str] = ()) -> None:
    """Give each option of all commands its environment variable: `TUMORBATCH_INFER_BATCH_SIZE`."""
    for name, command in group.commands.items():
        path = (*words, name)
        if isinstance(command, click.Group):
            name_variables(command, path)
            continue
        for option, parameter in options_of(command, _NOT_IN_ENVIRONMENT).items():
            own = _variable(path, option)
            before = parameter.envvar or []
            parameter.envvar = [own, *([before] if isinstance(before, str) else before)]


def _variable(words: Sequence[str], option: str) -> str:
    return PREFIX + "_".join((*words, option)).replace("-", "_").upper()


def unknown_variables(context: click.Context) -> Iterator[str]:
    """Yield a sentence for each environment variable that is named like an option, and is none."""
    words = words_of(context)
    known = {_variable(words, option) for option in options_of(context.command, _NOT_IN_ENVIRONMENT)}
    begin = _variable(words, "") if words else PREFIX + "\0"
    for name in sorted(os.environ):
        if name.startswith(begin) and name not in known:
            yield f"{printable(name)} is not an option of {' '.join(words)}{_nearest(name, known)}"


def _nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """Return the end of the sentence that refuses a name."""
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"; do you mean {close[0]}?" if close else "."


def read(path: Path, context: click.Context) -> dict[str, Any]:
    """Return {parameter: value} that a configuration file sets for the command of `context`.

    Raises:
        InputError: The file is missing, or is not TOML.
        ConfigError: It has a table that is not a command, a key that is not an option, or a value that
            an option does not take.
    """
    shown = printable(str(path))
    try:
        content = tomllib.loads(read_regular(path, _MAX_BYTES).decode())
    except FileNotFoundError as error:
        raise InputError(f"--config: {shown} does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"--config: {shown} cannot be read: {reason(error)}.") from error
    root = context.find_root().command
    words = words_of(context)
    table: Mapping[str, Any] = content
    command: click.Command = root
    for word in words:
        _refuse_unknown_tables(table, command, shown)
        command = command.commands[word] if isinstance(command, click.Group) else command
        table = table.get(word, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{shown}: {word} must be a table, [{word}].")
    options = options_of(context.command)
    place = f"{shown}, [{'.'.join(words)}]"
    values = {}
    for key, value in table.items():
        if key not in options:
            raise ConfigError(f"{place}: {key} is not an option{_nearest(key, options)}")
        option = options[key]
        values[option.name or ""] = _value(f"{place}: {key}", value, option, context)
    return values


def _refuse_unknown_tables(table: Mapping[str, Any], command: click.Command, shown: str) -> None:
    known = command.commands if isinstance(command, click.Group) else {}
    for name, value in table.items():
        if name not in known:
            what = (
                "is not a command" if isinstance(value, dict) else "stands outside of a command's table"
            )
            raise ConfigError(f"{shown}: {printable(name)} {what}{_nearest(name, set(known))}")


def _value(place: str, value: Any, option: click.Option, context: click.Context) -> Any:
    """Return a value as click takes it from a file: texts, as they would be typed, or a flag."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{place} must be true or false.")
        return value
    values = value if isinstance(value, list) else [value]
    fits = all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values)
    if not fits or (isinstance(value, list) and not option.multiple):
        what = "a text, a number, or a list of them" if option.multiple else "one text or number"
        raise ConfigError(f"{place} must be {what}.")
    texts = [str(one) for one in values]
    try:
        option.type_cast_value(context, texts if option.multiple else texts[0])
    except click.BadParameter as error:
        raise ConfigError(f"{place}: {error.message}") from error
    return texts if option.multiple else texts[0]


def save(path: Path, context: click.Context, arguments: Sequence[str]) -> None:
    """Write the options of a command as a configuration file; those by default as comments.

    Args:
        path: A new file.
        context: Of the command.
        arguments: What was typed after its name.

    Raises:
        ConfigError: The file exists.
        OutputError: It cannot be written.
    """
    if path.exists():
        raise ConfigError(f"--save-config: {printable(str(path))} exists. Give another name.")
    typed, _, _ = context.command.make_parser(context).parse_args(args=list(arguments))
    words = ".".join(words_of(context))
    lines = [
        f"# tumorbatch {' '.join(words_of(context))} --config {printable(path.name)}",
        f"[{words}]",
    ]
    for key, option in options_of(context.command).items():
        name = option.name or ""
        source = context.get_parameter_source(name)
        if source is ParameterSource.COMMANDLINE:
            lines.append(f"{key} = {_toml(typed[name], option)}")
        elif source is ParameterSource.ENVIRONMENT:
            lines.append(f"{key} = {_toml(option.value_from_envvar(context), option)}")
        elif source is ParameterSource.DEFAULT_MAP:
            lines.append(f"{key} = {_toml(context.lookup_default(name), option)}")
        elif isinstance(option.default, bool | int | float | str | Path) and option.default != "":
            lines.append(f"# {key} = {_toml(option.default, option)}")
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _toml(value: Any, option: click.Option) -> str:
    """Format a value that was typed, read or is a default."""
    if option.is_flag:
        return "true" if click.BOOL.convert(value, option, None) else "false"
    if option.multiple:
        return "[" + ", ".join(_scalar(one) for one in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    text = str(value)
    for kind in (int, float):
        try:
            if str(kind(text)) == text:  # not nan, not 007
                return text
        except ValueError:
            pass
    return json.dumps(printable(text), ensure_ascii=False).replace("\x7f", "\\u007f")
