"""The headline metric of a task on held-out texts, in batches of similar length."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.data.text import TextSplit, score
from imp_rg.data.text.batches import plan_epoch
from imp_rg.data.text.tasks import Kind, Task
from imp_rg.imp.replicates import unstack
from imp_rg.types import Batch, Float, Variables

MEASURED_BATCH = 64


def make_predict_fn(
    apply_fn, kind: Kind, *, widths: Sequence[int]
) -> Callable[[Variables, Batch], np.ndarray]:
    """Builds the outputs of a network for a whole data set, without dropout.

    Args:
      apply_fn: The network, see `imp_rg.models.bert.BertModel.make_apply_fn`.
      kind: Of the task.
      widths: To which inputs are padded.

    Returns:
      `predict(variables, data)`, a host array [example ...] in the order of the data. Outputs for
      tokens beyond the width of their batch are 0. Of masked words, the likeliest.

    References:
      House definition.
    """

    @jax.jit
    def forward(variables, tokens):
        outputs = apply_fn(variables, tokens, is_training=False)[0]
        return jnp.argmax(outputs, axis=-1) if kind == "masked" else outputs

    is_by_token = kind in ("span", "masked")

    def predict(variables, data):
        tokens = jax.device_get(data.x)
        plan = plan_epoch(None, tokens.length, batch_size=MEASURED_BATCH, widths=widths)
        parts = [forward(variables, tokens[part.rows].narrow(part.width)) for part in plan]
        per_token = (tokens.shape[1],) if is_by_token else ()
        rest = parts[0].shape[1 + is_by_token :]
        whole = np.zeros((len(tokens), *per_token, *rest), parts[0].dtype)
        for part, outputs in zip(plan, jax.device_get(parts), strict=True):
            is_real = part.weights > 0
            place = (part.rows[is_real], slice(part.width)) if is_by_token else part.rows[is_real]
            whole[place] = outputs[is_real]
        return whole

    return predict


def make_text_measure_fn(
    apply_fn, task: Task, split: TextSplit, *, widths: Sequence[int]
) -> Callable[[Variables, Batch], Float[np.ndarray, " seed"]]:
    """Builds the headline metric in percent of all replicates, one after another.

    Args:
      apply_fn: The network.
      task: Its first metric is the headline.
      split: The examples; their tokens come once more as the data to measure on.
      widths: To which inputs are padded.

    Returns:
      `measure(variables, data)`, variables with a leading seed axis.

    References:
      House definition.
    """
    predict = make_predict_fn(apply_fn, task.kind, widths=widths)

    def measure(variables, data):
        metrics = [score(task, split, predict(one, data)) for one in unstack(variables)]
        return np.array([100.0 * found[task.metrics[0]] for found in metrics])

    return measure
