"""The numbers of the paper's Tables 2 to 7, to stand beside ours.

In: a table number, a depth or a task. Out: printed values, copied digit by digit, under the table's
own row and column names. Tables 2 to 6 give sigma, Table 7 the critical exponent gamma.

References:
  Redman, Chen, Wang, Dogra, "Universality of Winning Tickets: A Renormalization Group Perspective",
  arXiv:2110.03210.
"""

from dataclasses import dataclass

CIFAR_DEPTHS = (14, 20, 32, 44, 56)
"""Depths of the CIFAR ResNets of Tables 4 to 6."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a table.

    Attributes:
      table: Number of the table, 2 to 7.
      row: Task or architecture as printed in the first column.
      labels: Column of each value. In Tables 4 to 6, which print bare lists, our block names: the
        lists have one entry fewer than the stage has blocks, taken as the blocks after its first.
      values: As printed; a column without an entry (a dash in Table 7) has neither label nor value.
      quantity: "sigma" or "gamma".
      note: What to know before comparing; empty if nothing.
    """

    table: int
    row: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    quantity: str = "sigma"
    note: str = ""

    @property
    def by_label(self) -> dict[str, float]:
        """Label to value, in column order."""
        return dict(zip(self.labels, self.values, strict=True))


def rows(table: int) -> tuple[PublishedRow, ...]:
    """Rows of one table, in printed order.

    Args:
      table: 2 to 7.

    Returns:
      The rows.

    Raises:
      ValueError: If the paper has no such table of numbers.

    References:
      Redman et al., arXiv:2110.03210, Tables 2-7.
    """
    if table not in _TABLES:
        raise ValueError(f"table must be one of {sorted(_TABLES)}, got {table}")
    return _TABLES[table]


def find(table: int, name: str) -> PublishedRow | None:
    """Row of a table whatever the spelling of its name: cifar10 and svhn_cropped are in Table 7.

    House definition.
    """
    by_name = {plain_name(row.row): row for row in rows(table)}
    return by_name.get(plain_name(name).removesuffix("cropped"))


def plain_name(name: str) -> str:
    """Letters and digits of a name, in lower case: cifar10 of CIFAR-10. House definition."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def cifar_resnet_sigma(depth: int) -> dict[str, float]:
    """Printed sigmas of a CIFAR-10 ResNet by block name, stage by stage.

    Args:
      depth: One of `CIFAR_DEPTHS`.

    Returns:
      Sigma of "stage1/block1", ...; the first block of each stage, block0, is not in the tables.

    Raises:
      ValueError: If the paper has no such depth.

    References:
      Redman et al., arXiv:2110.03210, Tables 4 (stage 1), 5 (stage 2), 6 (stage 3).
    """
    if depth not in CIFAR_DEPTHS:
        raise ValueError(f"depth must be one of {CIFAR_DEPTHS}, got {depth}")
    sigma = {}
    for table in (4, 5, 6):
        sigma |= _row(table, f"ResNet-{depth}").by_label
    return sigma


def resnet50_sigma(task: str, *, pretrained: bool = False) -> dict[str, float]:
    """Printed sigmas of ResNet-50 by stage, "stage1" to "stage4".

    Args:
      task: "CIFAR-10" or "CIFAR-100".
      pretrained: Whether training began at ImageNet weights.

    Returns:
      Sigma of each stage. The paper calls the four stages residual blocks.

    Raises:
      ValueError: If the paper has no such task.

    References:
      Redman et al., arXiv:2110.03210, Table 2.
    """
    values = _row(2, f"PT {task}" if pretrained else task).values
    return {f"stage{i}": value for i, value in enumerate(values, start=1)}


def _row(table: int, row: str) -> PublishedRow:
    found = {published.row: published for published in rows(table)}
    if row not in found:
        raise ValueError(f"row of Table {table} must be one of {list(found)}, got {row!r}")
    return found[row]


def _sigma_rows(
    table: int, values: dict[str, tuple[float, ...]], notes: dict[str, str] | None = None
) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(
            table=table,
            row=row,
            labels=tuple(f"sigma_{i}" for i in range(1, len(sigma) + 1)),
            values=sigma,
            note=(notes or {}).get(row, ""),
        )
        for row, sigma in values.items()
    )


def _stage_rows(
    table: int, stage: int, values: dict[int, tuple[float, ...]]
) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(
            table=table,
            row=f"ResNet-{depth}",
            labels=tuple(f"stage{stage}/block{i}" for i in range(1, len(sigma) + 1)),
            values=sigma,
        )
        for depth, sigma in values.items()
    )


def _gamma_rows(values: dict[str, dict[str, float]]) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(
            table=7, row=row, labels=tuple(gamma), values=tuple(gamma.values()), quantity="gamma"
        )
        for row, gamma in values.items()
    )


_TABLE_2 = _sigma_rows(
    2,
    {
        "CIFAR-10": (0.20, 0.14, 0.07, -0.68),
        "CIFAR-100": (0.14, 0.20, 0.04, -0.05),
        "PT CIFAR-10": (0.15, 0.13, 0.02, -0.10),
        "PT CIFAR-100": (0.15, 0.22, 0.10, -0.16),
    },
    notes={
        "CIFAR-10": "sigma_4 = -0.68 is 4 to 14 times the other three sigma_4; the text says it "
        "differed most, but a misprint is not excluded: compare sign and rank, not size."
    },
)

# fmt: off
_TABLE_3 = _sigma_rows(3, {
    "MNLI": (-.054, -.005, -.001, .002, .017, .018, .013, -.010, -.004, .013, .007, .004),
    "QQP": (-.056, -.004, -.001, .001, .017, .018, .013, -.010, -.003, .014, .007, .005),
    "STS-B": (-.058, -.004, -.002, .001, .016, .018, .013, -.010, -.003, .014, .008, .006),
    "WNLI": (-.058, -.004, -.002, .001, .016, .018, .013, -.010, -.003, .015, .008, .006),
    "QNLI": (-.057, -.004, -.001, .001, .017, .018, .013, -.010, -.003, .014, .007, .005),
    "MRPC": (-.058, -.004, -.002, .001, .016, .018, .013, -.010, -.002, .015, .008, .006),
    "RTE": (-.058, -.004, -.001, .001, .016, .018, .014, -.010, -.003, .014, .008, .006),
    "SST-2": (-.058, -.004, -.001, .001, .017, .018, .013, -.010, -.003, .014, .007, .006),
    "CoLA": (-.058, -.004, -.002, .001, .016, .018, .013, -.010, -.002, .014, .007, .006),
    "SQuAD v1.1": (-.052, -.005, -.001, .002, .017, .018, .014, -.009, -.003, .012, .005, .004),
})

_TABLE_4 = _stage_rows(4, 1, {
    14: (.23,),
    20: (.23, .26),
    32: (-.04, .19, .18, .26),
    44: (-.03, -.00, .20, .19, .19, .23),
    56: (.06, -.10, .25, .20, .18, .21, .11, .24),
})

_TABLE_5 = _stage_rows(5, 2, {
    14: (.10,),
    20: (.08, .07),
    32: (.11, .11, .04, -.01),
    44: (.15, .11, .10, .09, .02, .04),
    56: (.10, .06, .06, .06, .02, -.01, -.06, .03),
})

_TABLE_6 = _stage_rows(6, 3, {
    14: (-.21,),
    20: (-.16, -.20),
    32: (-.06, -.09, -.13, -.16),
    44: (-.09, -.13, -.16, -.20, -.15, -.08),
    56: (-.11, -.12, -.13, -.15, -.18, -.12, -.04, -.03),
})

_TABLE_7 = _gamma_rows({
    "CIFAR-10": {"No pre-train": -.14, "ImageNet": -.10, "simCLR": -.16, "MoCo": -.21},
    "CIFAR-100": {"No pre-train": -.11, "ImageNet": -.15, "simCLR": -.06, "MoCo": -.24},
    "SVHN": {"No pre-train": -.07, "ImageNet": -.06, "simCLR": -.03, "MoCo": -.29},
    "ImageNet": {"ImageNet": -.42},
    "simCLR": {"simCLR": -1.01},
})
# fmt: on

_TABLES = {2: _TABLE_2, 3: _TABLE_3, 4: _TABLE_4, 5: _TABLE_5, 6: _TABLE_6, 7: _TABLE_7}
