"""The command is called `experiments.rg_axioms`: a projection is also a shortcut or a layer."""

from experiments.shell import cli

if __name__ == "__main__":
    cli.renamed("projection", "rg_axioms")
