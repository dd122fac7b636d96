"""What two descriptions of stored things differ in, so that a refusal can name it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_MISSING, _NAMED = object(), 4


def differences(there: Any, asked: Any) -> str:
    """The fields in which two descriptions differ, as "settings.steps is 4 (asked: 1), ..."; empty if they are equal.

    Both are compared as JSON, where a tuple is a list. Of many fields the first are named.
    """
    fields = list(_walk(*(json.loads(json.dumps(x)) for x in (there, asked)), name=""))
    more = [f"and {len(fields) - _NAMED} more"] if len(fields) > _NAMED else []
    return ", ".join(fields[:_NAMED] + more)


def _walk(there: Any, asked: Any, name: str) -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for key in {**there, **asked}:
            yield from _walk(there.get(key, _MISSING), asked.get(key, _MISSING), f"{name}.{key}" if name else key)
    elif there != asked:
        yield f"{name or 'all'} is {_short(there)} (asked: {_short(asked)})"


def _short(value: Any) -> str:
    text = "nothing" if value is _MISSING else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
