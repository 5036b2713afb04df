"""The training loop: the same for pretraining and fine-tuning, which differ only in their objective.

One step (`lucidlm.train.step` has its parts): gradients of all micro-batches, each loss divided by the tokens that count
in the *whole* batch, clip, set the rate, update. Around it: evaluation, early stopping, checkpoints, a clean stop on
SIGINT and SIGTERM, and a look at each loss before it reaches the weights: a spike is told and, where that is asked for,
gone back from to a checkpoint, past the batches since. One that is not finite ends the run otherwise.

Everything random in a step is drawn from the run's seed and the step's number, and where to go back to depends on which
steps have checkpoints, so a resumed run gives the same bits as one that was never interrupted.

On several ranks each reads its part of a batch. What the clock or a signal decides, the first rank decides for all; it
alone writes what is written once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor, nn

from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, held_memory
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import ProgressBar, log
from lucidlm.core.seeds import derive
from lucidlm.distributed.placing import place
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.train.checkpoints import (
    LoopState,
    forget_after,
    list_checkpoints,
    load_checkpoint,
    require_fit,
    save_checkpoint,
    snapshot,
    way_back,
)
from lucidlm.train.config import LoopConfig
from lucidlm.train.metrics_log import ROLL_BACK, SPIKE, MetricsLog
from lucidlm.train.optim import build_optimizer
from lucidlm.train.schedule import rate
from lucidlm.train.signals import StopRequest
from lucidlm.train.spikes import is_sound
from lucidlm.train.step import Batch, Objective, accumulate_gradients, clip_gradients, read_figures
from lucidlm.train.update_ratio import UpdateRatio, is_due

if TYPE_CHECKING:
    from lucidlm.train.sharded_checkpoints import ShardedCheckpoints
    from lucidlm.train.tracking.tracking import Tracking


@dataclass
class Outcome:
    """How a run ended."""

    state: LoopState
    evaluation: dict[str, float]
    stopped_by: int | None
    """The signal that asked for the end, or None."""


class Loop(Generic[Batch]):
    """Trains `model` on `objective` and leaves `metrics.jsonl` and `checkpoints/` in `directory`.

    `layer_decay` is what `build_optimizer` makes of it; `ranks` is which of several processes this is; `tracking` is told
    what is written to the log.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective[Batch],
        config: LoopConfig,
        compute: Compute,
        directory: Path,
        *,
        layer_decay: float = 1.0,
        ranks: Ranks = ALONE,
        tracking: Tracking | None = None,
    ) -> None:
        if config.max_steps is None and config.minutes is None:
            raise InputError("neither max_steps nor minutes is given: the run would never end", fix="Pass one of them.")
        self.config = config = config.changed(optimizer=config.optimizer.completed())
        self.model, self.objective, self.compute, self.ranks = model, objective, compute, ranks
        self.checkpoints = directory / "checkpoints"
        several = ranks.count > 1
        self.spread = place(model, objective.loss, config.parallel, ranks, compute.device) if several else None
        self.trained = model if self.spread is None else self.spread.model
        self.optimizer = build_optimizer(self.trained, config.optimizer, layer_decay=layer_decay)
        self.state = LoopState()
        self.directory, self.tracking = directory, tracking
        self._shards: ShardedCheckpoints | None = None
        if self.spread is not None and self.spread.in_shards:
            from lucidlm.train.sharded_checkpoints import ShardedCheckpoints  # slow to import

            self._shards = ShardedCheckpoints(self.checkpoints, ranks, config.keep, config.checkpoint_steps)
        self._ratio = UpdateRatio(self.trained, ranks, in_shards=self._shards is not None)
        self._best: dict[str, Tensor] | None = None
        # Dropout differs from rank to rank.
        self._own_stream = () if ranks.first else (ranks.rank,)

    def run(self, *, resume: bool = False) -> Outcome:
        """Train to the end, or until asked to stop; the model then holds the best weights where patience is set.

        Raises
        ------
        InputError: `resume` finds no checkpoint, or a damaged one.
        LucidError: the loss is not finite, and the run may not go back; the last checkpoint is kept.
        """
        if resume:
            self._resume()
        if self.spread is not None:
            self.spread.spare = min(next(iter(self.objective.batches(0))), key=self.objective.tokens)
        done, back = self.state.step if resume else None, len(self.state.roll_backs)
        self._log = MetricsLog(self.directory, done, back) if self.ranks.first else None
        if self.tracking is not None:
            self.tracking.begin(done)
        evaluation: dict[str, float] = {}
        stopped_by: int | None = None
        task = ProgressBar("training", self.config.max_steps, "steps", done=self.state.step)
        with (
            closing(self._log) if self._log else nullcontext(),
            StopRequest() as stop,
            fast_matmul(self.compute.device),
            task,
        ):
            self._began, self._saved = time.monotonic() - self.state.wall, self.state.wall
            for batches in self._batches():
                if self._progress() >= 1 or self._stale():
                    break
                if not self._step(batches, task):
                    continue
                if self._evaluation_due():
                    evaluation = self._evaluate()
                if signal := int(max(row[0] for row in self.ranks.gather(stop.signal or 0))):
                    self._save()
                    stopped_by = signal
                    break
                if self._checkpoint_due():
                    self._save()
                if self._shards is not None:
                    self._shards.finish(wait=False)
            if self._shards is not None:
                self._shards.finish()
        if stopped_by is not None:
            return Outcome(self.state, evaluation, stopped_by)
        if self.spread is not None:
            self.spread.keep_whole()
        if self._best is not None:
            self.model.load_state_dict(self._best)
        return Outcome(self.state, evaluation, None)

    def _batches(self) -> Iterator[Sequence[Batch]]:
        """Yield each step's batch; where the run went back, those after the ones that it skips."""
        skipped = None
        while skipped != self.state.skipped:
            skipped = self.state.skipped
            for batches in self.objective.batches(self.state.step + skipped):
                yield batches
                if self.state.skipped != skipped:
                    break

    def _step(self, batches: Sequence[Batch], task: ProgressBar) -> bool:
        """Make a step, or go back to an earlier one; return whether one was made."""
        start = time.monotonic()
        config, state = self.config, self.state
        assert config.optimizer.learning_rate is not None
        torch.manual_seed(derive(config.seed, "step", state.step, *self._own_stream))  # dropout
        self.trained.train()
        losses = accumulate_gradients(self.model, self.objective, batches, self.compute, self.spread)
        # The step's one wait for the device stands before the update, so that a loss that is not finite never reaches
        # the weights. What it costs is the time in which the update is queued.
        loss, norm = read_figures(losses, clip_gradients(self.trained, config.clip), self.ranks)
        if state.spikes.begins(loss, norm) and self._went_back(loss, norm):
            task.advance(self.state.step - state.step)
            return False
        # Halfway through the step, so that neither the first rate nor the last one is zero.
        done, ahead = self._progress(), self._progress(steps_ahead=1)
        factor = rate(config.schedule, (done + ahead) / 2)
        self.optimizer.set_scale(factor)
        before = self._ratio.before() if is_due(done, ahead) else None
        self.optimizer.step()
        ratios = {} if before is None else self._ratio.after(before)
        self.optimizer.zero_grad()
        now = time.monotonic()
        read = sum(self.objective.tokens(batch) for batch in batches)
        told = self.ranks.gather(now - start, now - self._began, read)
        (seconds, wall, _), tokens = told[0], int(sum(row[2] for row in told))
        state.start_up = state.start_up or seconds
        state.step, state.tokens = state.step + 1, state.tokens + tokens
        state.training, state.wall = state.training + seconds, wall
        self._write(
            step=state.step,
            tokens=state.tokens,
            seconds=round(state.training, 3),
            train_loss=loss,
            learning_rate=factor * config.optimizer.learning_rate,
            tokens_per_second=round(tokens / seconds, 1),
            grad_norm=norm,
            wall_seconds=round(state.wall, 3),
            progress=self._progress(),
            memory=held_memory(self.compute.device),
            **{f"update_ratio_{part}": ratio for part, ratio in ratios.items()},
        )
        if config.minutes is not None:
            task.total = max(state.step, round(state.step / max(self._progress(), 1e-9)))
        task.advance(1, f"loss {loss:.4f}, {tokens / seconds:,.0f} tokens/s")
        return True

    def _went_back(self, loss: float, norm: float) -> bool:
        """Tell of a spike and go back to before it, where that is asked for and possible; return whether the run did.

        Raises
        ------
        LucidError: it did not, and what is not finite must not reach the weights.
        """
        state = self.state
        batch = self.objective.describe(state.step + state.skipped)
        what = f"{state.spikes.describe(loss, norm)} at step {state.step}, batch {batch}"
        to, why_not = self._way_back()
        if to is not None:
            log(what)
            self._roll_back(to, loss, norm)
        elif not is_sound(loss, norm):
            self._halt(what + why_not)
        else:
            log(what + why_not)
            if self._log is not None:
                self._log.write(step=state.step + 1, event=SPIKE, loss=loss, grad_norm=norm)
        return to is not None

    def _way_back(self) -> tuple[Path | None, str]:
        """Return the checkpoint that a spike sends the run back to; or None, and what is to be said of that."""
        if self.config.on_spike == "warn":
            return None, ""
        if (times := len(self.state.roll_backs)) >= self.config.roll_backs:
            return None, f", after {times} roll-backs, as many as are allowed"
        if self._shards is not None:
            self._shards.finish()
        to = self.ranks.agreed(way_back(self.checkpoints, self.state.step, self.config.checkpoint_steps))
        self.ranks.require_one_view(to is not None and to.exists(), self.checkpoints)
        return to, "" if to is not None else ", and there is no checkpoint to go back to yet"

    def _roll_back(self, to: Path, loss: float, norm: float) -> None:
        """Go on from a checkpoint with the batch after this one; time goes on too, all else is as it was there."""
        left = self.state
        self.optimizer.zero_grad()
        self._restore(to)
        state, last = self.state, left.step + left.skipped
        figures = {"loss": loss, "grad_norm": norm} if is_sound(loss, norm) else {}  # JSON has no others
        gone = {"at": left.step + 1, **figures, "to": state.step, "skipped": [state.step + state.skipped, last]}
        state.skipped, state.roll_backs = last + 1 - state.step, [*left.roll_backs, gone]
        state.training, state.wall = left.training, self._wall()
        if self._log is not None:
            forget_after(to)
            self._log.rewind(state.step, len(left.roll_backs))
            self._log.write(step=state.step, event=ROLL_BACK, **gone)
        log(f"back to {to}, and on without batches {gone['skipped'][0]:,} to {last:,}")

    def _progress(self, steps_ahead: int = 0) -> float:
        """Return how much of the run is done, in [0, 1]."""
        config, state = self.config, self.state
        shares = [0.0]
        if config.max_steps is not None:
            shares.append((state.step + steps_ahead) / config.max_steps)
        if config.minutes is not None:
            # Evaluations take their share of the time too, so progress is read off the wall clock.
            left = max(config.minutes * 60 - state.start_up, 1e-9)
            one = steps_ahead * (state.wall - state.start_up) / max(state.step, 1)
            shares.append((max(state.wall - state.start_up, 0.0) + one) / left)
        return min(1.0, max(shares))

    def _stale(self) -> bool:
        if self.config.patience is None or self.state.stale < self.config.patience:
            return False
        log(f"no better {self.objective.monitor} in {self.state.stale} evaluations: stopping early")
        return True

    def _evaluation_due(self) -> bool:
        progress = self._progress()
        return progress >= 1 or progress * self.config.evaluations >= self.state.evaluated + 1

    def _evaluate(self) -> dict[str, float]:
        with nullcontext() if self.spread is None else self.spread.whole():
            return self._judge()

    def _judge(self) -> dict[str, float]:
        """Evaluate the model, which has all its weights, and keep these if they are the best."""
        state, objective = self.state, self.objective
        self.model.eval()
        with torch.inference_mode():
            found = objective.evaluate(self.model)
        found, objective.noise = self.ranks.agreed((found, objective.noise))
        state.evaluated = int(self._progress() * self.config.evaluations)
        if not found:
            return found
        value, loss = found[objective.monitor], found.get("validation_loss", 0.0)
        # Compared in order: the figure, the loss where figures are equal, and where both are the later weights. So are
        # those whose figure is worse by chance only: they have learned longer, at a rate that fell.
        sign = 1 if objective.higher_is_better else -1
        standing, best = (sign * value, -loss), (sign * (state.best or 0.0), -state.best_loss)
        better = state.best is None or standing > best
        state.stale = 0 if better else state.stale + 1
        if better:
            state.best, state.best_loss = value, loss
        if better or standing == best or (objective.noise and standing[0] >= best[0] - objective.noise):
            state.best_step = state.step
            if self.config.patience is not None:
                self._best = snapshot(self.model)
        state.wall = self._wall()
        self._write(step=state.step, tokens=state.tokens, seconds=round(state.training, 3), **found)
        log(
            f"step {state.step:,}: "
            + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items())
        )
        return found

    def _checkpoint_due(self) -> bool:
        if self._progress() >= 1:
            return False
        if self.config.checkpoint_steps is not None:
            return self.state.step % self.config.checkpoint_steps == 0
        return self.state.wall - self._saved >= 60 * self.config.checkpoint_minutes

    def _wall(self) -> float:
        """Return the seconds since the run began, those of the first rank."""
        return self.ranks.agreed(time.monotonic() - self._began)

    def _write(self, **values: Any) -> None:
        """Write a line of `metrics.jsonl`."""
        if self._log is not None:
            self._log.write(**values)
            if self.tracking is not None:
                self.tracking.write(values)

    def _save(self) -> None:
        self.state.wall = self._wall()
        weights = dict(self.trained.state_dict())
        if self._best is not None:
            weights |= {f"best.{name}": value for name, value in self._best.items()}
        step, optimizer, state = self.state.step, self.optimizer.state_dict(), asdict(self.state)
        keep, every = self.config.keep, self.config.checkpoint_steps
        if self._shards is not None:
            self._shards.save(step, weights, optimizer, state)
        elif self.ranks.first:
            log(f"checkpoint {save_checkpoint(self.checkpoints, step, weights, optimizer, state, keep, every)}")
        self._saved = self._wall()

    def _resume(self) -> None:
        found = list_checkpoints(self.checkpoints)
        if not found:
            raise InputError(
                "there is no checkpoint to resume from",
                where=self.checkpoints,
                fix="Leave out --resume and name a new --out.",
            )
        self._restore(found[-1])
        log(f"resuming at step {self.state.step:,} from {found[-1]}")

    def _restore(self, checkpoint: Path) -> None:
        template = None if self._shards is None else self._shards.template(self.trained, self.optimizer)
        weights, optimizer, state = load_checkpoint(checkpoint, template)
        best = {name.removeprefix("best."): weights.pop(name) for name in list(weights) if name.startswith("best.")}
        self._best = best or None
        require_fit(weights, self.trained.state_dict(), checkpoint)
        self.trained.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        self.state = LoopState.of(state)

    def _halt(self, what: str) -> None:
        kept = list_checkpoints(self.checkpoints)
        last = f"the last good state is {kept[-1]}" if kept else "no checkpoint had been due yet"
        fix = "Lower the learning rate or look at that batch"
        if kept and self.config.on_spike == "warn":
            fix += f", or set loop.on_spike to roll-back in {CONFIG} and resume: that skips it"
        raise LucidError(f"{what}; the weights were not updated, {last}", fix=f"{fix}.")


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a run for the record in its model directory."""
    state = outcome.state
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "training_seconds": round(state.training, 1),
        "wall_seconds": round(state.wall, 1),
        **({"roll_backs": state.roll_backs} if state.roll_backs else {}),
        **outcome.evaluation,
    }
