"""The command is called `experiments.error_law`: exponents are sigma everywhere else."""

from experiments.shell import cli

if __name__ == "__main__":
    cli.renamed("exponents", "error_law")
