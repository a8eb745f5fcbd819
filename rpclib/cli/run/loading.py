"""Making the endpoint objects that ``rpclib run`` names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback

from rpclib.errors import ConfigError


def endpoint(name: str) -> object:
    """The endpoint object that ``MODULE:NAME`` means: a class or function to be called, or an instance.

    Raises ConfigError, which points at the line of the module that raised.
    """
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ConfigError(f'"{name}" is not of the form MODULE:CLASS, e.g. "services:Compute"')
    here = os.getcwd()
    if sys.path[0] != here:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f'there is no module "{error.name}" in {here} or among the installed ones') from None
        raise _raised(f"importing {module}", error) from error
    except Exception as error:
        raise _raised(f"importing {module}", error) from error
    for part in path.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ConfigError(f'the module {module} has no "{path}"{hint}')
        found = getattr(found, part)
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return found
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be called without arguments ({error}): name a function that can"
        ) from None
    try:
        return found()
    except Exception as error:
        raise _raised(f"calling {name}", error) from error


def _raised(what: str, error: Exception) -> ConfigError:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "?"
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    return ConfigError(f"{what} raised {type(error).__name__}: {text} ({place})")
