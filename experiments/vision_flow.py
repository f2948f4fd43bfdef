"""Do tasks share the exponents of a ResNet's stages, and does pre-training bring them together?

Runs iterative magnitude pruning of one network on several tasks of images, from scratch and from
pre-trained weights, one run folder per task and init, and sets the exponents sigma_i of the stages
(the paper's Table 2) and their distances between tasks beside those of null models.

    python -m experiments.vision_flow                                    # parts of CIFAR, 2 cores
    python -m experiments.vision_flow --preset smoke                     # digits, 2 minutes
    python -m experiments.vision_flow --preset short --device gpu        # ResNet-50, CIFAR-10/100
    python -m experiments.vision_flow --preset paper --device gpu --inits scratch resnet50.pth

What each preset runs, for every task from scratch and pre-trained on the other task by labels:

    smoke     ResNet-18 at 1/8 width, digits: 2 seeds, levels 0 to 2 of 100 steps
    default   ResNet-18 at 1/8 width, 10,000 images of CIFAR-10 and of CIFAR-100 at 16x16: 3 seeds,
              levels 0 to 10 of 624 steps; a small stand-in, not the paper's experiment
    short     ResNet-50, CIFAR-10 and CIFAR-100: 1 seed, levels 0 to 10 of 10 epochs
    paper     ResNet-50, CIFAR-10 and CIFAR-100: 3 seeds, levels 0 to 18 of 182 epochs

Expected of CIFAR-10 and CIFAR-100 (Table 2): sigma positive in stages 1 to 3 and negative in stage
4, where the two tasks differ by 0.63 from scratch and by 0.06 pre-trained on ImageNet. Dense
accuracy in the source study: 94.3 and 75.9 %.

Obtained by the default preset (`experiments/results/cifar-parts-resnet18`; 2.3 h of 2 cores
beside other work; dense accuracy 50 and 18 %, so no verdict):

    sigma               stage1   stage2   stage3   stage4
    CIFAR-10, scratch   +0.387   +0.257   +0.076   -0.131
      init null         +0.435   +0.348   +0.153   -0.214
    CIFAR-100, scratch  +0.380   +0.275   +0.099   -0.143
      init null         +0.439   +0.347   +0.152   -0.213

The signs are those of the paper in all four runs, and of their init nulls too; what training adds
is of the opposite sign in every stage. Distance of the tasks: 0.016 from scratch, 0.019
pre-trained on each other, not told apart.

The command says how long it will take. Each of them is an ordinary run folder, finished levels are
kept: the same command continues an unfinished experiment, further tasks and inits add to a finished
one.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.1 and Table 2; recipe of Chen et al.,
arXiv:2012.06908.
"""

from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import Study
from experiments.studies.vision.config import PRESETS, Config
from experiments.studies.vision.findings import write_findings
from experiments.studies.vision.page import lead_table, make_page
from experiments.studies.vision.run import run_all
from imp_rg.config import require
from imp_rg.imp.mesh import is_lead, start_distributed


def run(config: Config) -> Path:
    """Runs or continues the experiment; returns the folder of its runs."""
    if config.distributed:
        rule = "must be scratch or files, pre-trained before, with --distributed"
        require(not config.sources, "inits", rule, tuple(config.sources))
        start_distributed()
    use_device(config)
    study = Study("vision_flow", quiet=not is_lead())
    out = run_all(config, study)
    if is_lead():
        write_findings(out)
        study.table(lead_table(out))
        study.report(make_page(out), out)
    return out


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.vision_flow")
