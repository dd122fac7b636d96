"""What every lesson uses: its start, a row of pictures, what changed between two of them, and `ask`, which calls
a learner's function and says what is wrong."""

import _thread
import copy
import io
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from numbers import Real
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
from IPython.display import Image as Picture, display
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sae_lib import as_image
from sae_lib.companion import use_house_style
from sae_lib.models import seed_everything, set_up_torch, silence_progress_bars

SECONDS = 5.0
"""Seconds after which an answer is stopped; a right one takes milliseconds."""

MEMORY_GB = 1.5
"""Free memory that a lesson needs, without JupyterLab and a browser (measured: at most 1.4 GB)."""


class NotYet(Exception):
    """What a check says about an answer that is not right yet: one sentence, shown without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet. {self}"]


def start() -> None:
    """Sets the seeds, one thread, quiet progress bars and the house style; says what would spoil the
    lesson on this laptop."""
    seed_everything(0)
    set_up_torch("pocket")
    silence_progress_bars()
    use_house_style()
    plt.rcParams["figure.dpi"] = 80
    memory = psutil.virtual_memory()
    if memory.available < MEMORY_GB * 1e9:
        print(
            f"This laptop has {memory.available / 1e9:.1f} GB of its {memory.total / 1e9:.0f} GB of memory free "
            f"and a lesson needs {MEMORY_GB}: close other programs and other notebooks (Kernel, Shut Down All Kernels)."
        )
    if not os.access(".", os.W_OK):
        print("This folder cannot be written, so your answers will not be saved: copy it to where you may write.")


def show(pictures: Sequence[Tensor], titles: Sequence[str]) -> None:
    """Shows a row of pictures `[3, 64, 64]` in [0, 1] under their titles, at twice their size."""
    side, gap, head = 2 * pictures[0].shape[-1], 8, 26
    sheet = Image.new("RGB", (len(pictures) * (side + gap) - gap, side + head), "white")
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left = place * (side + gap)
        sheet.paste(as_image(picture).resize((side, side), Image.Resampling.NEAREST), (left, head))
        look = {"anchor": "mm", "font": ImageFont.load_default(16), "fill": "black"}
        ImageDraw.Draw(sheet).text((left + side / 2, head / 2), title, **look)
    with io.BytesIO() as file:
        sheet.save(file, "PNG")  # PIL's own display would store a JPEG too
        display(Picture(file.getvalue()))


def difference(before: Tensor, after: Tensor) -> Tensor:
    """What changed between two pictures in [0, 1], as a picture: after minus before, added to a middle grey.

    Changes of more than half of the range are cut off.
    """
    return (0.5 + after - before).clamp(0, 1)


class _Heard(io.TextIOBase):
    """Takes what is printed and keeps its beginning, so that an endless loop that prints fills no memory."""

    def __init__(self):
        self.text, self.lines = "", 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        self.text += text[: max(0, 40 - len(self.text))]
        return len(text)

    @property
    def start(self) -> str:
        """The first line, or what was kept of it."""
        line, rest, _ = self.text.partition("\n")
        return line if rest or len(line) < 40 else f"{line} …"


def ask(function: Callable, *arguments: Any) -> Any:
    """What a learner's function returns for copies of the arguments.

    Raises NotYet if it is not a function, is not written yet, takes longer than SECONDS, raises, returns nothing, or
    changes what it was given.
    """
    if not callable(function):
        raise NotYet(f"The check wants a function and got {function!r}: give it the function's name, without brackets.")
    name, given, heard = function.__name__, copy.deepcopy(arguments), _Heard()
    with redirect_stdout(heard):
        result = _in_time(function, given)
    if result is None:
        printed = f" It prints {heard.start!r}, but the caller cannot use that." if heard.lines else ""
        raise NotYet(f"{name} gives nothing back (None).{printed} End it with `return ...`.")
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, Tensor) and not torch.equal(before, after):
            raise NotYet(
                f"{name} changes the tensor that it was given: "
                "make a new one (`x = x - b`, not `x -= b` or `x[...] = `)."
            )
    return result


def _in_time(function: Callable, arguments: tuple) -> Any:
    name, late = function.__name__, threading.Event()

    def stop() -> None:
        late.set()
        _thread.interrupt_main()  # on Windows too, where there is no alarm signal

    timer = threading.Timer(SECONDS, stop)
    timer.daemon = True
    # Where the parent ignores interrupts, as a shell's background jobs do, Python would too, and the
    # loop would never end.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        return function(*arguments)
    except NotImplementedError:
        raise NotYet(f"{name} is not written yet: put your lines in place of `raise NotImplementedError`.") from None
    except KeyboardInterrupt:
        if not late.is_set():
            raise
        raise NotYet(f"{name} was stopped after {SECONDS:g} s: does one of its loops never end?") from None
    except Exception as error:  # noqa: BLE001 (a learner's code may raise anything)
        where = traceback.extract_tb(error.__traceback__)[1:]
        line = f" in the line `{where[0].line}`" if where and where[0].line else ""
        says = (str(error).splitlines() or ["it says no more"])[0]
        raise NotYet(f"{name} stops with {type(error).__name__}{line}: {says}") from None
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def expect(function: Callable, arguments: Sequence[Any], wanted: Any, known: Mapping[str, Any] | None = None) -> None:
    """Asks the function and compares; wanted is a tensor, a number, a word or a tuple of these.

    known: the results of typical mistakes, each under the sentence that it deserves. Raises NotYet with that sentence,
    or with one about the type, device, shape or the first wrong value.
    """
    got, name = ask(function, *arguments), function.__name__
    if isinstance(wanted, tuple):
        got = _several(got, len(wanted))
    for sentence, wrong in (known or {}).items():
        if _same(got, wrong) and not _same(got, wanted):
            raise NotYet(f"{name}: {sentence}")
    _expect_like(name, got, wanted)


def _several(got: Any, count: int) -> Any:
    """The values that were got: a list or a tensor of the wanted number of values counts as a tuple."""
    right = isinstance(got, list | Tensor) and (not isinstance(got, Tensor) or got.ndim > 0) and len(got) == count
    return tuple(got) if right else got


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return isinstance(got, tuple) and len(got) == len(wanted) and all(map(_same, got, wanted))
    if not isinstance(wanted, Tensor | Real):
        return type(got) is type(wanted) and got == wanted
    if not isinstance(got, Tensor | Real):
        return False
    got, wanted = (value if isinstance(value, Tensor) else torch.tensor(float(value)) for value in (got, wanted))
    if got.shape != wanted.shape or got.device != wanted.device:
        return False
    return torch.allclose(got.double(), wanted.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _expect_like(name: str, got: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        if not isinstance(got, tuple) or len(got) != len(wanted):
            raise NotYet(f"{name} gives {_described(got)}; wanted {len(wanted)} values: `return first, second`.")
        for one, other in zip(got, wanted, strict=True):
            _expect_like(name, one, other)
    elif isinstance(wanted, str):
        if got != wanted:
            raise NotYet(f"{name} gives {got!r}; wanted {wanted!r}.")
    elif isinstance(wanted, Tensor):
        _expect_tensor(name, got, wanted)
    else:
        if not isinstance(got, Real) and not (isinstance(got, Tensor) and got.numel() == 1):
            raise NotYet(f"{name} gives {_described(got)}; wanted one number.")
        if not _same(float(got), wanted):
            raise NotYet(f"{name} gives {float(got):.4g}; wanted {float(wanted):.4g} in the check's small example.")


def _expect_tensor(name: str, got: Any, wanted: Tensor) -> None:
    if not isinstance(got, Tensor):
        raise NotYet(f"{name} gives {_described(got)}; wanted a tensor.")
    if got.device != wanted.device:
        raise NotYet(
            f"{name} gives a tensor on the device {got.device}; wanted {wanted.device}, as the input is: "
            "make it from the input (`x.new_zeros(...)`) or with `device=x.device`."
        )
    if got.shape != wanted.shape:
        raise NotYet(f"{name} gives a tensor of shape {list(got.shape)}; wanted {list(wanted.shape)}.")
    if not _same(got, wanted):
        wrong = ~torch.isclose(got.double(), wanted.double(), rtol=1e-4, atol=1e-6)
        place = tuple(wrong.nonzero()[0].tolist())
        raise NotYet(
            f"{name} is right in {(~wrong).sum()} of {wrong.numel()} entries; at {list(place)} it gives "
            f"{got[place].item():.4g}, wanted {wanted[place].item():.4g}."
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return "a numpy array (stay in torch: no `.numpy()`)"
    if type(value).__module__ == "torch.return_types":
        return "values and their places (`.max(dim)` and `.topk(k)` give both; take `.values`)"
    return f"{len(value)} values" if isinstance(value, tuple) else f"a {type(value).__name__}"


def passed(function: Callable, says: str) -> None:
    """Prints that a check found nothing wrong."""
    print(f"✓ {function.__name__}: {says}")
