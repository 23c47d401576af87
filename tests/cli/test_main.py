"""The command line itself: finding commands, help, exit codes and messages."""

import io
import os
import shutil
import subprocess
import sys

import pytest

import haim_tf

COMMANDS = (
    "classifier",
    "choose_sampling",
    "compare",
    "complete",
    "compress",
    "decompress",
    "encode",
    "evaluate",
    "export",
    "info",
    "list",
    "plot",
    "reconstruct",
    "sample",
    "train",
    "upload",
)


def start(*arguments, options=()):
    """`python -m haim_tf` as a process of its own."""
    command = [sys.executable, *options, "-m", "haim_tf", *arguments]
    # Without the log level that the tests set, as users have it.
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_terminal_that_cannot_write_a_name_gets_it_written_out(run, tmp_path, monkeypatch):
    folder = tmp_path / "blätter"
    shutil.copytree(haim_tf.presets.find("debug"), folder)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("info", folder)[0] == 0
    assert f"in {tmp_path}/bl\\xe4tter\n" in terminal.buffer.getvalue().decode("ascii")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_an_output_that_is_full_is_one_line():
    for command in ("list", "help"):
        shell = f"{sys.executable} -m haim_tf {command} > /dev/full"
        found = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
        assert found.returncode == 2 and found.stderr.count("\n") == 1
        assert found.stderr.startswith("haim_tf") and found.stderr.endswith("No space left on device\n")


def test_an_output_that_is_closed_is_none():
    shell = f"{sys.executable} -m haim_tf list >&-"
    found = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_lists_the_commands(run, arguments):
    code, output, errors = run(*arguments)
    assert (code, errors) == (0, "")
    lines = {line.split()[0]: line for line in output.splitlines() if line.startswith("  ")}
    assert set(COMMANDS) <= set(lines) and "main" not in lines and "_output" not in lines
    assert lines["list"].endswith("Lists the models of the zoo.")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_flags_of_the_command_only(run, command):
    code, output, errors = run(command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith(f"usage: haim_tf {command}")
    assert ("..." in output.splitlines()[0].split("--")[0]) == (command in ("compress", "decompress"))
    shown = [line.strip() for line in output.splitlines() if line.startswith("  --")]
    reading = (
        "choose_sampling",
        "classifier",
        "compare",
        "complete",
        "encode",
        "evaluate",
        "reconstruct",
        "train",
    )
    assert ("--data" in shown) == (command in reading)
    assert ("--labels" in shown) == (command in ("compress", "sample"))
    assert "--verbosity" not in shown


@pytest.mark.parametrize("flag", ["--version", "version"])
def test_version(run, flag):
    assert run(flag) == (0, f"haim_tf {haim_tf.__version__}\n", "")


def test_help_marks_what_is_required(run):
    lines = run("train", "--help")[1].splitlines()
    assert lines[0] == "usage: haim_tf train --data=... --output=... [--flag=value ...]"
    described = dict(zip(lines, lines[1:], strict=False))
    for flag, needed in (("data", True), ("output", True), ("config", False), ("seed", False)):
        assert described[f"  --{flag}"].strip().startswith("Required. ") == needed
    assert run("info", "--help")[1].startswith("usage: haim_tf info MODEL [--flag=value ...]\n")


def test_unknown_command_suggests_near_ones(run):
    assert run("sampel") == (2, "", "haim_tf: unknown command 'sampel'; did you mean sample?\n")
    code, _, errors = run("qqq")
    assert code == 2 and "commands: choose_sampling, classifier, compare" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "debug"], "haim_tf list: unexpected argument 'debug'"),
        (["list", "--patern=x"], "haim_tf list: Unknown command line flag 'patern'. Did you mean: pattern ?"),
        (["sample"], "haim_tf sample: --model must be given (haim_tf sample --help lists the flags)"),
        (["sample", "--model=debug", "--num=0"], "haim_tf sample: flag --num=0"),
        (["sample", "--model=debug", "--num=few"], "haim_tf sample: flag --num=few"),
        (["sample", "--model=debgu"], "haim_tf sample: there is no model 'debgu': did you mean 'debug'?"),
        (["sample", "--model=./nothing"], "haim_tf sample: there is no preset folder './nothing'"),
        (
            ["reconstruct", "--model=debug", "--data=x", "--decoder=best"],
            "haim_tf reconstruct: flag --decoder",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message):
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(message) and errors.count("\n") == 1


def test_system_errors_name_the_file(run, monkeypatch):
    def deny(*arguments):
        raise PermissionError(13, "Permission denied", "/there/config.json")

    monkeypatch.setattr("haim_tf.presets.list_models", deny)
    assert run("list") == (2, "", "haim_tf list: /there/config.json: Permission denied\n")


@pytest.mark.parametrize("by", ["--debug", "HAIM_TF_DEBUG"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sample", "--model=debgu"], "ValueError: there is no model 'debgu'"),
        (["sample", "--model=./nothing"], "FileNotFoundError: there is no preset folder './nothing'"),
        (["list", "--patern=x"], "UnrecognizedFlagError: Unknown command line flag 'patern'"),
    ],
)
def test_debugging_keeps_the_traceback(run, monkeypatch, by, arguments, error):
    if by == "--debug":
        arguments = [*arguments, "--debug"]
    else:
        monkeypatch.setenv("HAIM_TF_DEBUG", "1")
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("Traceback") and error in errors.splitlines()[-1]


def test_debugging_changes_nothing_else(run):
    assert run("--debug", "list") == run("list", "--debug") == run("list")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_an_error_that_is_not_the_users_is_not_made_a_line(run, monkeypatch, kind, debug):
    def fail(*arguments):
        raise kind("raised outside haim_tf")

    monkeypatch.setattr("haim_tf.presets.list_models", fail)
    with pytest.raises(kind, match="raised outside haim_tf"):
        run("list", *debug)


def test_interrupted(run, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("haim_tf.presets.list_models", interrupt)
    assert run("list")[0] == 130


@pytest.mark.parametrize("command", ["list", "--help", "--version"])
def test_answers_without_tensorflow_and_keras(command):
    process = start(command, options=["-X", "importtime"])
    answer = {"list": "debug", "--help": "usage", "--version": "haim_tf"}[command]
    assert process.returncode == 0 and answer in process.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
    assert "haim_tf.cli.main" in imported
    assert not {"tensorflow", "keras", "numpy"} & imported


def test_one_line_on_stderr_even_when_tensorflow_starts():
    process = start("sample", "--model=debug", "--labels=blue")
    assert process.returncode == 2
    assert process.stderr == (
        "haim_tf sample: --labels: there is no class 'blue'; the classes are 'zero', 'one', 'two', 'three', "
        "'four', ... (or a number in 0..9)\n"
    )
