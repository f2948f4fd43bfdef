"""What does pruning a pre-trained encoder give without any training?

Prunes the weights of a checkpoint to 90, 80, ... 10 % of their number and reads sigma by layer and
by kind of matrix: the `init` flow, beside Gaussian weights of the same sizes and scales. No data is
needed. The exponents of IMP on a task say something about learning only where they differ.

    python -m experiments.language_init                          # the embedded 6-layer encoder
    python -m experiments.language_init --checkpoint PATH
    python -m experiments.language_init --checkpoint bert-base-uncased

Takes seconds. The embedded encoder has sigma -0.002, 0.037, 0.041, 0.012, -0.020, -0.077 by layer,
and from -0.31 (output) to +0.18 (query) by kind.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.2 and Table 3.
"""

from pathlib import Path

import jax

from experiments.shell import cli
from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.language.config import InitConfig as Config
from experiments.studies.language.untrained import (
    init_flow,
    make_page,
    pooler_frame,
    sigma_table,
    untrained_frame,
)
from imp_rg.foreign.bert_variables import find_checkpoint, load_bert, read_config
from imp_rg.models.bert import make_bert
from imp_rg.runs.files import read_csv, write_csv
from imp_rg.runs.folder import RunFolder

PRESETS = {"default": Config()}


def run(config: Config) -> Path:
    """Reads the checkpoint, prunes, measures; returns the folder of the results."""
    study = Study("language_init")
    checkpoint = find_checkpoint(config.checkpoint)
    model = make_bert(read_config(checkpoint))
    loaded = load_bert(jax.random.key(0), checkpoint, model)
    flow = init_flow(model, loaded.variables.params, config)
    out = config.out or Path("runs") / "language_init" / Path(config.checkpoint).name
    settings = {"experiment": "language_init", **identity(config)}
    folder = RunFolder(out, settings, fresh=config.fresh)
    write_csv(out / "init_flow.csv", flow.frame())
    is_pooler_fresh = "pooler/kernel" in loaded.fresh
    write_csv(out / "sigma.csv", untrained_frame(flow))
    write_csv(out / "pooler.csv", pooler_frame(flow, is_fresh=is_pooler_fresh))
    study.describe(folder)
    page = make_page(out)
    study.table(sigma_table(read_csv(out / "sigma.csv"), "layer"))
    return study.report(page, out)


if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.language_init",
        when_stopped="nothing is kept; the same command takes seconds",
    )
