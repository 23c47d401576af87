"""`run`: a command of the command line in this process."""

import sys

import pytest
from absl import flags

import haim_tf
import haim_tf.cli
from haim_tf import presets
from haim_tf.cli import main as cli

_LOADED = {}


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    """A preset whose files are the same as before is the same model, so that its programs are made once."""
    load = presets.load

    def load_once(name_or_folder, **options):
        folder = presets.find(name_or_folder)
        files = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
        key = (folder, *files, repr(sorted(options.items())))
        if key not in _LOADED:
            model = load(name_or_folder, **options)
            if presets.WEIGHTS not in dict(files):  # That warns, each time.
                return model
            _LOADED[key] = model, model.class_names, model.sampling_defaults
        model, model.class_names, model.sampling_defaults = _LOADED[key]
        return model

    monkeypatch.setattr(presets, "load", load_once)
    monkeypatch.setattr(haim_tf, "load", load_once)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `haim_tf` with the given arguments; returns exit code, stdout and stderr."""
    # Long work gets no line of its own: what takes long depends on the machine.
    for name in ("LINE_SECONDS", "SLOW_SECONDS"):
        monkeypatch.setattr(f"haim_tf.progress.{name}", 1e6)

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
            # `from haim_tf.cli import _sheets` would find it here, its flags forgotten.
            vars(sys.modules["haim_tf.cli"]).pop(name.rpartition(".")[2], None)
    flags.FLAGS.unparse_flags()
