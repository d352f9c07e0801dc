"""Runs one function as a command-line job: its signature is the interface, its docstring the help."""

import argparse
import inspect
import json
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path

from duodiff import signals

log = logging.getLogger("duodiff")


def run(function: Callable[..., str]) -> None:
    """Parses sys.argv by the signature of `function`, calls it and logs the one line it returns.

    Every parameter is an option (`dict` and `bool` ones take JSON, `list[Path]` ones several paths); `--log FILE`
    keeps a copy of the output. A ValueError or OSError is an error of the user's: its message alone is
    shown, exit 1; for any other the traceback too. Where SIGTERM, SIGUSR1 or SIGINT stop it the exit is 75, and the
    same command continues as far as the function keeps what it has done.
    """
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(function), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, parameter in inspect.signature(function).parameters.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **_option(parameter))
    parser.add_argument("--log", type=Path, help="also write what is logged to this file")
    options = vars(parser.parse_args())
    _configure_logging(options.pop("log"))
    signals.stop_at_once()
    try:
        log.info("%s: %s", function.__name__, function(**options))
    except signals.Stopped as stopped:
        log.error("%s: %s", function.__name__, stopped)
        sys.exit(signals.EXIT_CODE)
    except (ValueError, OSError) as error:
        log.error("%s: %s", function.__name__, error)
        sys.exit(1)
    except Exception:
        log.exception(function.__name__)
        sys.exit(1)


def _option(parameter: inspect.Parameter) -> dict:
    kind, option = parameter.annotation, {}
    if isinstance(kind, types.UnionType):  # X | None
        kind = kind.__args__[0]
    if isinstance(kind, types.GenericAlias):  # list[X]
        kind, option["nargs"] = kind.__args__[0], "*"
    option["type"] = json.loads if kind in (dict, bool) else kind
    if parameter.default is inspect.Parameter.empty:
        option["required"] = True
    else:
        option["default"] = parameter.default
    return option


def _configure_logging(path: Path | None) -> None:
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [terminal]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w"))
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
