"""Runs functions as command-line jobs. A function's parameters become the options, its docstring the help."""

import argparse
import gc
import inspect
import io
import json
import logging
import os
import re
import shlex
import sqlite3
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from duodiff.running import files, gpus, memory, provenance, receipts, signals

log = logging.getLogger("duodiff")

COMPILED = Path("results/.compiled")
"""What torch.compile keeps for the jobs of a study. It decides no result, and is made again where it is missing."""

# Imported objects stay in use. The garbage collector would search them some 400 times, a tenth of torch's import time.
gc.set_threshold(20_000)


@contextmanager
def importing() -> Iterator[None]:
    """The block at the top of a script for imports that take long or may fail.

    Nothing is imported if the store has the result that --plan asks for: the process then ends, with exit code 0. A
    failed import is reported like any error of a job. The terminal shows one line, the file of --log the traceback. The
    exit code is 1.
    """
    tolerate_console()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--plan", type=json.loads)
    given = parser.parse_known_args()[0]
    if given.plan and given.plan["kept"]:
        _end_if_found(given.plan, given.log)
    try:
        yield
    except Exception as error:  # a damaged library raises other errors than ImportError
        _configure_logging(given.log)
        log.debug("", exc_info=True)
        log.error("%s: %s: %s", Path(sys.argv[0]).stem, type(error).__name__, error)
        sys.exit(1)


def _end_if_found(planned: dict, logged: Path | None) -> None:
    """Ends the process if the store has the result of this plan, which is then in its place.

    An error is not reported here: the job meets it again.
    """
    with suppress(ValueError, OSError):
        if receipts.take(receipts.begun(**planned), write_files=_is_first()):
            _configure_logging(logged)
            log.info("%s: found finished in %s", planned["work"][1], receipts.STORE)
            sys.exit(0)


def tolerate_console() -> None:
    """Has the terminal show the code of a character that its encoding lacks, such as \\u2192, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(function: Callable[..., str]) -> None:
    """Calls `function` with the options of sys.argv. Logs the line that it returns, its run time and its --out.

    Every parameter is an option. A positional-only parameter is an argument without a name. A `dict` or `bool` is
    given as JSON, a `list[Path]` as several paths, a `Literal` as one of its values. A `bool` that is False by default
    is a flag without a value. `--log FILE` also writes the log to a file. A line "- `name`: text" of the docstring is
    the help of this parameter.

    ValueError and OSError are errors of the user: the terminal shows only the message, the log file the traceback too.
    Any other error shows its traceback on both. The exit code of an error is 1. It is 75 where SIGTERM, SIGUSR1 or
    SIGINT stopped the job. The same command then continues from the work that the function has saved.

    After a success, a job that imported torch ends the process: this function does not return.
    """
    tolerate_console()
    parser = argparse.ArgumentParser(**_help(function))
    _add_options(parser, function)
    _call(function, vars(parser.parse_args()))


def run_one_of(functions: list[Callable[..., str]], name: str, description: str) -> None:
    """As `run`, for one of several functions: the first argument names it. `name` is the program's name in the help."""
    tolerate_console()
    parser = argparse.ArgumentParser(prog=name, description=description)
    commands = parser.add_subparsers(metavar="command", required=True)
    for function in functions:
        title = (function.__doc__ or "").strip().partition("\n")[0]
        command = commands.add_parser(function.__name__, help=title, **_help(function))
        command.set_defaults(function=function)
        _add_options(command, function)
    options = vars(parser.parse_args())
    _call(options.pop("function"), options)


def _argument(parameter: inspect.Parameter) -> dict:
    """How argparse takes an argument without a name, which may be left out if it has a default."""
    if parameter.default is parameter.empty:
        return {"type": parameter.annotation}
    return {"type": parameter.annotation, "nargs": "?", "default": parameter.default}


_PARAMETER = re.compile(r"^- `(\w+)`: (.*(?:\n  .*)*)\n?", re.M)
"""What a docstring says of a parameter: a line that begins with its name, and further lines that are indented."""


def _help(function: Callable) -> dict:
    formatter = argparse.RawDescriptionHelpFormatter
    description = _PARAMETER.sub("", inspect.getdoc(function) or "").replace("\n\n\n", "\n\n")
    return {"description": description.replace("%", "%%"), "formatter_class": formatter}


def _add_options(parser: argparse.ArgumentParser, function: Callable) -> None:
    said = {k: " ".join(v.split()) for k, v in _PARAMETER.findall(inspect.getdoc(function) or "")}
    for name, parameter in inspect.signature(function).parameters.items():
        text = said.get(name, "").replace("%", "%%")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(name, **_argument(parameter), help=text)
        else:
            option = _option(parameter)
            option["help"] = " ".join(filter(None, [text, option.get("help")]))
            parser.add_argument(f"--{name.replace('_', '-')}", **option)
    parser.add_argument("--log", type=Path, help="also write what is logged to this file")
    parser.add_argument("--plan", type=json.loads, help=argparse.SUPPRESS)


def _call(function: Callable[..., str], options: dict) -> None:
    _configure_logging(options.pop("log"))
    planned = options.pop("plan", None)
    plan = receipts.begun(**planned) if planned else None
    if plan:
        _keep_compiled()
    signals.stop_at_once()
    if "torch" in sys.modules:  # a job without tensors needs little memory
        memory.keep_freed_memory()
    parameters = inspect.signature(function).parameters.values()
    positional = [options.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY]
    began = time.perf_counter()
    try:
        _check_folders(plan.outputs if plan else [], options.get("out"))
        if options.get("device") == "cuda" and "LOCAL_RANK" not in os.environ:
            gpus.claim(1)  # under torchrun, `launch` has claimed the GPUs of all processes
        if plan and receipts.take(plan, write_files=_is_first()):
            log.info("%s: found finished in %s", function.__name__, receipts.STORE)
            return
        _check_device(options.get("device"))
        done = function(*positional, **options)
        if plan and _is_first():
            receipts.write(plan)
        log.info("%s: %s%s", function.__name__, done, _where(options, time.perf_counter() - began))
    except signals.Stopped as stopped:
        log.warning("%s: %s", function.__name__, stopped)
        sys.exit(signals.EXIT_CODE)
    except (ValueError, OSError) as error:
        log.error("%s: %s", function.__name__, _message(error, plan))
        log.debug("", exc_info=True)  # the traceback, only to the file of --log
        sys.exit(1)
    except sqlite3.OperationalError as error:  # of the databases in temporary files
        log.error(
            "%s: %s: TMPDIR cannot be used: %s", function.__name__, tempfile.gettempdir(), error
        )
        log.debug("", exc_info=True)
        sys.exit(1)
    except Exception:
        log.exception(function.__name__)
        sys.exit(1)
    if "torch" in sys.modules:
        _leave()


def _message(error: ValueError | OSError, plan: receipts.Plan | None) -> str:
    """What is said of an error. Of a file that is not there: its name, and the command that makes or fetches it."""
    if not isinstance(error, FileNotFoundError) or not error.filename:
        return str(error)
    command = receipts.made_by(error.filename)
    if plan and not command and (fetched := receipts.fetched(plan)):
        command = f"; if it was fetched and removed: rm {shlex.join(fetched)}, then run again"
    return f"{error.filename}: found no such file{command}"


def _leave() -> None:
    """Ends the process at once, with exit code 0.

    Python would take 0.4 s to free the objects of torch, a quarter of the time that a job takes to start. The system
    frees them anyway. Child processes that still run, such as a compiler's, then end by themselves.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _check_folders(outputs: list[str], out: Path | list[Path] | None) -> None:
    """Raises OSError, before any work, if a folder that the job writes to cannot be written to."""
    for path in map(Path, [*outputs, *(out if isinstance(out, list) else filter(None, [out]))]):
        files.require_writable(path if path.is_dir() else path.parent)
    if said := files.use_temporary_folder():
        log.warning(said)


def _keep_compiled() -> None:
    """Has torch.compile, and Triton below it, keep what they compile in the study's folder, for the jobs that follow.

    Each kind of processor has a folder of its own: what is compiled for one may stop with an error on another. A folder
    that the environment names stays. So does torch's own where a shell, by which compilers are called, would misread
    the path.
    """
    kind = re.sub(r"\W+", "-", provenance.cpu_name()).strip("-")
    path = str((COMPILED / kind).resolve())
    if shlex.quote(path) == path:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", path)


def _check_device(device: str | None) -> None:
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"device: found {device!r}; accepted: cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("device: found 'cuda' where torch sees no GPU; accepted: cpu")


def _option(parameter: inspect.Parameter) -> dict:
    kind = parameter.annotation
    option: dict[str, Any] = {}
    if isinstance(kind, types.UnionType):  # X | None
        kind = kind.__args__[0]
    if isinstance(kind, types.GenericAlias):  # list[X]
        kind, option["nargs"] = kind.__args__[0], "*"
    if get_origin(kind) is Literal:
        kind, option["choices"] = str, get_args(kind)
    if parameter.default is False:
        return {"action": "store_true"}
    option["type"] = json.loads if kind in (dict, bool) else kind
    if parameter.default is inspect.Parameter.empty:
        option["required"] = True
    else:
        option["default"] = parameter.default
    if option.get("default") is not None:
        option["help"] = f"(default: {option['default']})"
    return option


def _where(options: dict, seconds: float) -> str:
    """The end of a job's log line: its run time and its first output. Empty if it has no --out."""
    out = options.get("out")
    if out is None:
        return ""
    return f" ({seconds:.1f} s; {out[0] if isinstance(out, list) else out})"


def _is_first() -> bool:
    """Whether this is the only process of the job, or the first of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


def _configure_logging(path: Path | None) -> None:
    first = _is_first()  # the others log only their errors
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.INFO if first else logging.ERROR)
    handlers: list[logging.Handler] = [terminal]
    if path is not None and first:
        # the name of a file may hold bytes that are no text
        errors = "backslashreplace"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, "w", encoding="utf-8", errors=errors))
        except OSError as error:
            sys.exit(f"{path}: the log cannot be written: {error.strerror}")
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
