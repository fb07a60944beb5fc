"""How much mail is routed at which hour of the day: as a picture, or for the terminal."""

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

_WIDTH = 50
_TITLE = "Messages routed in an hour (UTC): mean and most"


def lines(mean: list[float], most: list[int]) -> Iterator[str]:
    """Yield a bar for each hour of the day."""
    yield _TITLE
    unit = max(*most, 1) / _WIDTH
    for hour, (average, peak) in enumerate(zip(mean, most, strict=True)):
        full = round(average / unit)
        bar = "#" * full + "-" * (round(peak / unit) - full)
        yield f"{hour:02}  {bar.ljust(_WIDTH)}  {average:8.1f} {peak:6}"


def has_library() -> bool:
    """Tell whether a picture can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(path: Path, mean: list[float], most: list[int]) -> None:
    """Write a PNG; raises OSError."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(9, 4), dpi=110)
    axes = figure.subplots()
    hours = range(24)
    axes.bar(hours, most, color="#c9d7e6", label="most")
    axes.bar(hours, mean, color="#2f6b9e", width=0.5, label="mean")
    axes.set(title=_TITLE, xlabel="hour of the day (UTC)", ylabel="messages", xticks=list(hours))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, format="png")
