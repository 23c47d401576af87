"""`run`: a command of the command line in this process."""

import sys

import pytest
from absl import flags

from haim_tf.cli import main as cli


@pytest.fixture
def run(capsys):
    """Runs `haim_tf` with the given arguments; returns exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        finally:
            _forget_commands()
        written = capsys.readouterr()
        return code, written.out, written.err

    yield run
    _forget_commands()


def _forget_commands():
    """Flags live in one global registry: a process of its own would have those of one command only."""
    for name in [name for name in sys.modules if name.startswith("haim_tf.cli.")]:
        for flag in list(flags.FLAGS.flags_by_module_dict().get(name, ())):
            delattr(flags.FLAGS, flag.name)
        if name != "haim_tf.cli.main":
            del sys.modules[name]
    flags.FLAGS.unparse_flags()
