"""Run tasks of lm-evaluation-harness on a model directory: published suites, or custom tasks in YAML files."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.core.io import write_json

RESULTS = "harness.json"


def run_harness(
    directory: str | Path,
    tasks: Sequence[str],
    *,
    include: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate the model in `directory` on the harness's `tasks`; write the results to `harness.json` and return them.

    Parameters
    ----------
    tasks: names of tasks, groups or tags; `*` stands for any characters.
    include: a folder with custom tasks. Paths in them are relative to the working directory.
    limit: use only this many examples of each task, the first ones.
    shots: few-shot examples in each prompt; None: the task's default.
    out: where the file is written; None: the model's directory.

    Raises
    ------
    InputError: lm-eval is not installed, a task is unknown or its data cannot be loaded, or the model is not causal.
    """
    require_package("lm_eval", "eval", name="lm-eval", where="--lm-eval")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from lucidlm.evaluate.harness_model import HarnessModel

    if include is not None and not Path(include).is_dir():
        raise InputError("there is no such folder", where=include, fix="Pass the folder that holds the YAML files.")
    # Listing the thousands of published tasks takes seconds, so it is done only if one of them is asked for.
    manager = TaskManager(include_path=None if include is None else str(include), include_defaults=False)
    if not all(manager.match_tasks([name]) for name in tasks):
        manager = TaskManager(include_path=None if include is None else str(include))
    names = [found for name in tasks for found in _matching(name, manager)]
    model = HarnessModel(directory, device=device)
    loaded = [part for name in names for part in _load(name, manager)]
    found: dict[str, Any] = simple_evaluate(  # pyright: ignore[reportAssignmentType]  (rank 0 gets no None)
        model, tasks=loaded, num_fewshot=shots, limit=limit, task_manager=manager, bootstrap_iters=1000
    )
    samples = found.pop("samples", {})
    found["model_name"], found["lm_eval_version"] = model.name, importlib.metadata.version("lm_eval")
    plain = json.loads(json.dumps(found, default=str))
    folder = Path(directory if out is None else out)
    write_json(folder / RESULTS, plain)
    return {**plain, "samples": samples}


def harness_table(found: dict[str, Any]) -> str:
    """Return the results of `run_harness` as the table that the harness prints."""
    from lm_eval.utils import make_table

    return make_table(found)


def _matching(name: str, manager: Any) -> list[str]:
    """Return the tasks that match `name`."""
    if found := manager.match_tasks([name]):
        return sorted(found)
    from difflib import get_close_matches

    close = get_close_matches(name, manager.all_tasks, 5)
    raise InputError(
        f"lm-evaluation-harness has no task {name!r}",
        where="--lm-eval",
        fix=(f"Did you mean {', '.join(close)}? " if close else "")
        + "Tasks of your own are found in the folder that --lm-eval-include names.",
    )


def _load(name: str, manager: Any) -> list[Any]:
    """Return the group, or the tasks, of this name, with their data.

    Raises
    ------
    InputError: the data cannot be found or fetched.
    """
    try:
        found = manager.load([name])
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"the task {name} cannot be loaded: {type(error).__name__}: {reason[0] if reason else 'no reason given'}",
            where="--lm-eval",
            fix="Its data come from the Hugging Face Hub: go online, or write a task whose data_files are on this "
            "machine and name its folder with --lm-eval-include.",
        ) from error
    return [found["groups"][name]] if name in found["groups"] else list(found["tasks"].values())
