import numpy as np
import pytest

from imp_rg import published

ENTRIES_PER_STAGE = {14: 1, 20: 2, 32: 4, 44: 6, 56: 8}


@pytest.mark.parametrize("table, num_rows", [(2, 4), (3, 10), (4, 5), (5, 5), (6, 5), (7, 5)])
def test_rows(table, num_rows):
    rows = published.rows(table)
    assert len(rows) == num_rows == len({row.row for row in rows})
    assert all(row.table == table for row in rows)
    assert all(len(row.labels) == len(row.values) == len(row.by_label) for row in rows)
    assert {row.quantity for row in rows} == {"gamma" if table == 7 else "sigma"}


@pytest.mark.parametrize("depth, entries", ENTRIES_PER_STAGE.items())
def test_cifar_resnets_list_all_blocks_but_the_first_of_each_stage(depth, entries):
    sigma = published.cifar_resnet_sigma(depth)
    assert entries == (depth - 2) // 6 - 1
    want = [f"stage{s}/block{b}" for s in (1, 2, 3) for b in range(1, entries + 1)]
    assert list(sigma) == want


def test_bert_shares_are_conserved():
    for row in published.rows(3):
        assert len(row.values) == 12
        # Twelve layers of one size share a fixed total; printed to 0.001, so rows sum to zero.
        assert abs(sum(row.values)) <= 0.002 + 1e-12, row.row


def test_signs_the_text_names():
    for pretrained in (False, True):
        for task in ("CIFAR-10", "CIFAR-100"):
            sigma = published.resnet50_sigma(task, pretrained=pretrained)
            assert list(np.sign(list(sigma.values()))) == [1, 1, 1, -1]
    third_stage = [v for row in published.rows(6) for v in row.values]
    assert max(third_stage) < 0
    small = [v for row in published.rows(4)[:2] for v in row.values]
    assert min(small) > 0
    assert max(v for row in published.rows(7) for v in row.values) < 0


@pytest.mark.parametrize(
    ("dataset", "row"),
    [("cifar10", "CIFAR-10"), ("svhn_cropped", "SVHN"), ("CIFAR-100", "CIFAR-100"), ("digits", "")],
)
def test_rows_are_found_by_any_spelling_of_a_data_set(dataset, row):
    found = published.find(7, dataset)
    assert (found.row if found else "") == row


def test_bert_flows_slowest():
    bert = np.median(np.abs([v for row in published.rows(3) for v in row.values[1:]]))
    vision = np.median(np.abs([v for row in published.rows(2) for v in row.values]))
    assert bert == pytest.approx(0.007) and vision == pytest.approx(0.14)


def test_spot_values():
    assert published.resnet50_sigma("CIFAR-10")["stage4"] == -0.68
    assert published.resnet50_sigma("CIFAR-100", pretrained=True)["stage2"] == 0.22
    assert published.cifar_resnet_sigma(56)["stage1/block2"] == -0.10
    assert published.cifar_resnet_sigma(44)["stage2/block1"] == 0.15
    assert published.cifar_resnet_sigma(20)["stage3/block2"] == -0.20
    assert [row.note != "" for row in published.rows(2)] == [True, False, False, False]
    assert published.rows(7)[4].by_label == {"simCLR": -1.01}


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: published.rows(1), r"table must be one of \[2, 3, 4, 5, 6, 7\], got 1"),
        (lambda: published.cifar_resnet_sigma(110), r"depth must be one of .*, got 110"),
        (lambda: published.resnet50_sigma("SVHN"), r"row of Table 2 must be .* got 'SVHN'"),
    ],
)
def test_unknown_rows(call, match):
    with pytest.raises(ValueError, match=match):
        call()
