"""Runs on a terminal: a loss curve in characters, figures, samples; and one line of each where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lucidlm.core.amounts import size
from lucidlm.report.language import Language
from lucidlm.report.live.following import FollowedFolder, FollowedRun
from lucidlm.train.metrics_log import ROLL_BACK, SPIKE

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character, which has four rows of two dots."""
BRAILLE = 0x2800
EARLY = 0.05
"""The share of the steps whose losses, which are far above all others, may lie above the picture."""
ROWS, LABEL = 12, 9
"""Height of the curve, and width of what is written beside it, in characters."""
STYLES = {"running": "green", "silent": "yellow", "finished": "cyan", "stopped": "yellow", "failed": "red"}
IN_LINE = {"rate": "{value}", "time": "{value}", "left": "{value} left"}
"""How a fact is said in a line, where not by its name and value."""
TELLING = ("step", "tokens", "seconds")
"""What a line of an evaluation has beside its figures."""

Points = Sequence[tuple[float, float]]


def draw(folder: FollowedFolder, console: Console) -> RenderableType:
    """Return a picture of a run; of several a table, and a picture of the one that changed last."""
    if not folder.runs:
        return Text(waiting(folder))
    latest = max(folder.runs, key=lambda run: run.changed)
    picture = _panel(latest, console)
    return picture if folder.single else Group(_table(folder.runs, console.options.ascii_only), picture)


def waiting(folder: FollowedFolder) -> str:
    """Return what is said before there is a run."""
    what = "no run has left a step yet" if folder.path.is_dir() else "there is no such directory yet"
    return f"{folder.path}: {what}; waiting for it (Ctrl-C ends)"


def line(run: FollowedRun) -> str:
    """Return a run in one line."""
    parts = [IN_LINE.get(name, "{name} {value}").format(name=name, value=value) for name, value in _facts(run).items()]
    return shown(f"{run.name}: " + ", ".join([*parts, *_figures(run.evaluation), _standing(run)]))


def shown(text: str, plain: bool = False) -> str:
    """Return a text without what would steer the terminal; where that is to be `plain`, in ASCII."""
    safe = "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
    return safe.encode("ascii", "replace").decode() if plain else safe


def draw_curve(training: Points, validation: Points, width: int, height: int, *, plain: bool = False) -> list[str]:
    """Return a picture of two curves, `height` lines of `width` characters: dots, and ● where it was evaluated.

    Parameters
    ----------
    training, validation: steps and losses; there is one at least.
    plain: draw with ASCII alone.
    """
    points = [*training, *validation]
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low = min(value for _, value in points)
    high = max(value for step, value in points if step >= first + EARLY * (last - first))
    columns, rows = 2 * width, 4 * height

    def column(step: float, count: int) -> int:
        return min(count - 1, int((step - first) / max(last - first, 1e-9) * count))

    def row(value: float, count: int) -> int:
        return min(count - 1, max(0, int((high - value) / max(high - low, 1e-9) * count)))

    bits = [[0] * width for _ in range(height)]
    falling: dict[int, list[float]] = {}
    for step, value in training:
        falling.setdefault(column(step, columns), []).append(value)
    before: int | None = None
    for across, values in falling.items():
        down = row(sum(values) / len(values), rows)
        start = down if before is None else before + (down > before) - (down < before)
        for dot in range(min(start, down), max(start, down) + 1):
            bits[dot // 4][across // 2] |= DOTS[dot % 4][across % 2]
        before = down
    cells = [[(("*" if plain else chr(BRAILLE + one)) if one else " ") for one in line] for line in bits]
    for step, value in validation:
        cells[row(value, height)][column(step, width)] = "o" if plain else "●"
    labels = {0: f"{high:.3f}", height // 2: f"{(low + high) / 2:.3f}", height - 1: f"{low:.3f}"}
    edge = "|" if plain else "┤"
    lines = [f"{labels.get(index, ''):>{LABEL}} {edge}{''.join(line)}" for index, line in enumerate(cells)]
    steps = f"step {first:,.0f}"
    return [*lines, f"{'':{LABEL + 2}}{steps}{last:>{max(0, width - len(steps))},.0f}"]


def _panel(run: FollowedRun, console: Console) -> Panel:
    plain = console.options.ascii_only
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(run).items():
        facts.add_row(Text(name, style="dim"), Text(value))
    if run.evaluation:
        held_out = f"at step {run.evaluation['step']:,.0f}: {', '.join(_figures(run.evaluation))}"
        facts.add_row(Text("last evaluation", style="dim"), Text(held_out))
    parts: list[RenderableType] = [facts]
    if run.training.points or run.validation.points:
        width = max(10, console.width - LABEL - 6)
        lines = draw_curve(run.training.points, run.validation.points, width, ROWS, plain=plain)
        picture = Text("\n".join(lines), no_wrap=True)
        picture.highlight_regex("[●]", "bold yellow")
        mark = "o" if plain else "●"
        parts += [Text(), picture, Text(f"{'':{LABEL + 2}}loss in training, {mark} on held-out text", style="dim")]
    for sample in run.samples:
        text = " ".join(str(sample.get("text", "")).split())
        parts.append(Text(shown(text, plain), style="italic", overflow="crop", no_wrap=True))
    if run.damaged:
        parts.append(Text(f"{run.damaged:,} damaged lines of metrics.jsonl are left out", style="yellow"))
    if run.state == "failed" and run.error:
        parts.append(Text(shown(run.error, plain), style="red"))
    title = Text.assemble(f"{shown(run.name, plain)}: ", (_standing(run), STYLES[run.state]))
    return Panel(Group(*parts), title=title, title_align="left")


def _table(runs: Sequence[FollowedRun], plain: bool) -> Table:
    names = ("run", "state", "step", "loss", "validation loss", "left")
    table = Table(*names, expand=True)
    for run in runs:
        facts = _facts(run)
        validation = run.evaluation.get("validation_loss")
        cells = [facts.get("step", "-"), facts.get("loss", "-")]
        cells += ["-" if validation is None else f"{validation:.4f}", facts.get("left", "-")]
        table.add_row(Text(shown(run.name, plain)), Text(_standing(run), STYLES[run.state]), *map(Text, cells))
    return table


def _facts(run: FollowedRun) -> dict[str, str]:
    """Return what is known of a run, by what it is called."""
    last, duration, found = run.last, Language().duration, dict[str, str]()
    if "step" in last:
        of = "" if run.total is None else f" of {run.total:,} ({last['progress']:.0%})"
        found["step"] = f"{last['step']:,.0f}{of}"
    if "train_loss" in last:
        found["loss"] = f"{last['train_loss']:.4f}"
    if "tokens_per_second" in last:
        found["rate"] = f"{last['tokens_per_second']:,.0f} tokens/s"
    if "learning_rate" in last:
        found["learning rate"] = f"{last['learning_rate']:.2g}"
    for event, name in ((SPIKE, "spikes"), (ROLL_BACK, "roll-backs")):
        if event in run.events:
            count, last_at = run.events[event]
            found[name] = f"{count:,}, last at step {last_at:,.0f}"
    if "memory" in last:
        found["memory"] = size(last["memory"])
    if "wall_seconds" in last:
        found["time"] = duration(last["wall_seconds"])
    if run.left is not None and not run.ended:
        found["left"] = duration(run.left)
    return found


def _figures(evaluation: dict[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} {value:.4f}" for name, value in evaluation.items() if name not in TELLING]


def _standing(run: FollowedRun) -> str:
    return f"no sign of life for {Language().duration(run.silent)}" if run.state == "silent" else run.state
