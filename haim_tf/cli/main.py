"""The `haim_tf` command: finds the subcommand, parses its flags, and turns bad input into one clear line.

A subcommand is a file of this folder: the first line of its docstring is its help, it defines absl flags and
`main(argv)`, where it takes more than flags also `ARGUMENTS`, what the usage line calls them, and it imports
what is slow (keras, the rest of haim_tf) inside `main`. Only the one that runs is imported, so that their
flags do not collide and help comes at once.

Bad input is what haim_tf itself raises a ValueError for, or the system an OSError. Any other error is not the
user's, and keeps its traceback.
"""

import ast
import contextlib
import difflib
import importlib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from haim_tf import progress
from haim_tf.version import __version__

HELP_FLAGS = ("--help", "-help", "-h", "help")
VERSION_FLAGS = ("--version", "-version", "version")
DEBUG_FLAG, DEBUG_VARIABLE = "--debug", "HAIM_TF_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `haim_tf COMMAND --flags`; `arguments` are those of the process by default.

    With `--debug`, or `HAIM_TF_DEBUG=1` in the environment, the one line on bad input becomes a traceback.

    Returns:
        The exit code: 0, 2 for bad input (one line on stderr says what is wrong), 130 when interrupted. Where
        whoever reads standard output has gone, as `head` goes, it ends at once and without a word.
    """
    with contextlib.suppress(AttributeError, ValueError):  # It is no file, or closed.
        sys.stdout.reconfigure(errors="backslashreplace")  # Names hold what not every terminal can write.
    code = 0
    try:
        code = _main(arguments)
        print(end="", flush=True)
        return code
    except OSError as error:
        # Python itself flushes it once more at its end.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            return 0
        return code or _complain("haim_tf", f"cannot write to standard output: {error.strerror}")
    finally:
        progress.close_all()


def _main(arguments):
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = DEBUG_FLAG in arguments or os.environ.get(DEBUG_VARIABLE) == "1"
    name, *arguments = [argument for argument in arguments if argument != DEBUG_FLAG] or ["help"]
    commands = _find_commands()
    if name in HELP_FLAGS:
        print(_overview(commands))
        return 0
    if name in VERSION_FLAGS:
        print(f"haim_tf {__version__}")
        return 0
    if name not in commands:
        near = difflib.get_close_matches(name, commands)
        hint = f"did you mean {' or '.join(near)}?" if near else f"commands: {', '.join(commands)}"
        return _complain("haim_tf", f"unknown command {name!r}; {hint}")
    command = importlib.import_module(f"haim_tf.cli.{name}")
    if any(argument in HELP_FLAGS[:-1] for argument in arguments):
        print(_help(name, command))
        return 0
    try:
        argv = flags.FLAGS([f"haim_tf {name}", *arguments])
        if argv[1:] and not hasattr(command, "ARGUMENTS"):
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        command.main(argv)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = bad_input(error, name)
        if message is None:
            raise
        if debug:
            traceback.print_exc()
            return 2
        return _complain(f"haim_tf {name}", message)
    return 0


def bad_input(error: Exception, command: str) -> str | None:
    """What to tell the user, where the error is about what they gave; `None` where it is not."""
    if isinstance(error, flags.Error):
        if missing := re.match(r"flag --(\w+)=None: Flag --\1 must have a value", str(error)):
            return f"--{missing[1]} must be given (haim_tf {command} --help lists the flags)"
        return f"{error} (haim_tf {command} --help lists the flags)"
    if isinstance(error, OSError):
        known = error.filename and error.strerror
        return f"{error.filename}: {error.strerror}" if known else str(error)
    if isinstance(error, ValueError):
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        if Path(innermost.f_code.co_filename).is_relative_to(Path(__file__).parents[1]):
            return str(error)
    return None


def _find_commands():
    """Each subcommand's name and the first line of its docstring, nothing imported."""
    commands = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "main" and not path.stem.startswith("_"):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            commands[path.stem] = docstring.splitlines()[0]
    return commands


def _overview(commands):
    width = max(map(len, commands))
    lines = ["usage: haim_tf COMMAND [--flag=value ...]", ""]
    lines += [f"  {name:<{width}}  {help_line}" for name, help_line in commands.items()]
    lines += [
        "",
        "haim_tf COMMAND --help lists a command's flags.",
        f"{DEBUG_FLAG} shows where an error arose; haim_tf --version tells the version.",
    ]
    return "\n".join(lines)


def _help(name, command):
    shown = flags.FLAGS.get_key_flags_for_module(command)
    required = [f"--{flag.name}=..." for flag in shown if _is_required(flag)]
    words = ["usage: haim_tf", name, getattr(command, "ARGUMENTS", ""), *required, "[--flag=value ...]"]
    lines = [" ".join(filter(None, words)), "", command.__doc__.strip(), ""]
    for flag in sorted(shown, key=lambda flag: not _is_required(flag)):
        default = "" if flag.default in (None, False, "", []) else f" (default: {flag.default_as_str})"
        prefix = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
        needed = "Required. " if _is_required(flag) else ""
        text = textwrap.wrap(f"{needed}{flag.help}{default}", 100)
        lines += [f"  {prefix}", *(f"      {line}" for line in text)]
    return "\n".join(lines)


def _is_required(flag):
    """Whether a flag must be given: absl has it checked not to be `None`, and remembers it no other way."""
    return flag.default is None and any(not validator.checker(None) for validator in flag.validators)


def _complain(what, error):
    progress.close_all()
    with contextlib.suppress(OSError):  # Nobody reads it.
        print(f"{what}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
