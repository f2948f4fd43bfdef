"""What do networks start from? Pre-training by labels, SimCLR or MoCo v2, and IMP on that task.

Trains one network from scratch and writes its weights for others to start from; with --levels it
is then pruned on the task of its pre-training, as the study of pre-trained tickets did: weights
are pruned before they are trained any further, each level is short and at a small constant rate,
and every level starts from the pre-trained weights.

    python -m experiments.pretrain --method simclr                       # parts of CIFAR-10
    python -m experiments.pretrain --preset smoke --method moco --levels 4
    python -m experiments.pretrain --preset paper --method moco --dataset folder:PATH --device gpu
    python -m experiments.pretrain ... --levels 18 --init-from FILE     # prunes published weights

Results lie in --out: weights.safetensors (the network, by leaf path), projector.safetensors,
metrics.csv (epoch, loss, metric), and with --levels an ordinary run folder, imp/. Saved epochs and
levels are kept: the same command goes on from there.

The preset smoke takes a minute of one core: supervised, digits are told apart to 94 % after 3
epochs.

A set too large for memory, such as ImageNet, is streamed: --dataset folder:PATH, where both views
of an image are cut at its full size while it is read, and their colours changed on the device.

Where this differs from the study: SGD stands for LARS, as the study's text has it, against its
code; MoCo's batches are not shuffled between devices; held-out views of a streamed set are cut
from the centres of its images. As in the study, levels of the contrastive methods keep optimizer
and queue, those of supervised training begin with a fresh optimizer. The projection head of a
published file is not read but sampled.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.1; recipe of Chen et al.,
arXiv:2012.06908.
"""

from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import Study
from experiments.studies.pretrain import run as pretraining
from experiments.studies.pretrain.config import PRESETS, Config


def run(config: Config) -> Path:
    """Runs or continues pre-training and levels; returns the folder of the results."""
    use_device(config)
    return pretraining.run(config, Study("pretrain"))


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.pretrain")
