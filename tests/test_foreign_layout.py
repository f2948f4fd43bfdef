"""Which files are which level of which seed: on trees of real files."""

import json
import os
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from imp_rg.foreign.layout import LevelFiles, find_levels
from imp_rg.foreign.sequence import natural_key

ONES = {"conv1.weight": np.ones((2, 3), np.float32)}


def write(path):
    """A real checkpoint of the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(ONES, path)
    elif path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **ONES)
    elif path.suffix == "":
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), ONES)
    else:
        torch = pytest.importorskip("torch")
        state = {name: torch.from_numpy(x) for name, x in ONES.items()}
        torch.save({"state_dict": state} if path.suffix == ".tar" else state, path)


def tree(root, *names):
    for name in names:
        write(root / name)
    return root


def weights(layout, seed=0):
    return [files.weights.name for files in layout.levels[seed]]


def test_natural_order():
    names = ["level10", "level2", "b1", "level2b", "a10b2", "a10b1", "a9b3", "10", "9"]
    expected = ["9", "10", "a9b3", "a10b1", "a10b2", "b1", "level2", "level2b", "level10"]
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize("name", ["model.npz", "model.safetensors", "model.pt", "model"])
def test_one_checkpoint_alone(tmp_path, name):
    write(tmp_path / name)
    layout = find_levels(tmp_path / name)
    files = (LevelFiles(tmp_path / name, None),)
    assert layout == ("single", ("0",), (files,), (None,))
    assert find_levels(tmp_path).levels == (files,)


def test_levels_in_natural_order_and_mixed_formats(tmp_path):
    tree(tmp_path, *(f"level{n}.npz" for n in (0, 2, 9, 10)))
    tree(tmp_path, *(f"level{n}.safetensors" for n in (1, 3, 4, 5, 6, 7, 8)))
    write(tmp_path / "level11")  # Orbax
    layout = find_levels(tmp_path)
    assert layout.kind == "sequence" and layout.seeds == ("0",) and layout.rewind == (None,)
    stems = [name.split(".")[0] for name in weights(layout)]
    assert stems == [f"level{n}" for n in range(12)]


def test_what_is_no_checkpoint_is_passed_over(tmp_path):
    tree(tmp_path, "level0.npz", "level1.npz", "optimizer.npz", "scheduler.npz", ".hidden.npz")
    for name in ("README.md", "log.txt", "metrics.csv", "args.json", ".DS_Store"):
        (tmp_path / name).write_text("a, b")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out").write_bytes(b"\x18\0\0")
    assert weights(find_levels(tmp_path)) == ["level0.npz", "level1.npz"]


@pytest.mark.parametrize("name", ["level2.pt", "level2.safetensors", "mask1.npz", "2ckpt.pth.tar"])
def test_a_broken_checkpoint_is_not_passed_over(tmp_path, name):
    tree(tmp_path, "level0.npz", "level1.npz")
    (tmp_path / name).write_bytes(b"\x80\x04K\x00.")  # a plain pickle
    with pytest.raises(ValueError, match=f"{name}: .* plain pickle, which could run code"):
        find_levels(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["resnet20_3.npz", "resnet20_1.npz", "resnet20_0.npz", "resnet20_2.npz"], "0123"),
        (["sparsity_20.npz", "sparsity_36.npz", "sparsity_0.npz"], ["0", "20", "36"]),
        (["dense.npz", "pruned-once.npz", "pruned-twice.npz"], None),
        (["0model_SA_best.npz", "0checkpoint.npz", "1checkpoint.npz"], ["0c", "1c"]),
    ],
)
def test_names_that_number_the_levels_in_their_own_way(tmp_path, names, expected):
    layout = find_levels(tree(tmp_path, *names))
    if expected is None:
        assert weights(layout) == names
    else:
        for name, part in zip(weights(layout), expected, strict=True):
            assert part in name.removeprefix("resnet20")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["w0.npz", "w1.npz", "mask0.npz", "mask1.npz"], {"w0": "mask0", "w1": "mask1"}),
        (["level0.npz", "level1.npz", "mask_1.npz"], {"level0": None, "level1": "mask_1"}),
        (
            ["level0.npz", "level1.npz", "level1_mask.npz"],
            {"level0": None, "level1": "level1_mask"},
        ),
        (["dense.npz", "masks.npz"], {"dense": "masks"}),
        (["a.npz", "b.npz", "a_mask.npz", "b_mask.npz"], {"a": "a_mask", "b": "b_mask"}),
    ],
)
def test_masks_beside_the_weights(tmp_path, names, pairs):
    (levels,) = find_levels(tree(tmp_path, *names)).levels
    found = {f.weights.stem: f.masks.stem if f.masks else None for f in levels}
    assert found == pairs


@pytest.mark.parametrize("name", ["init.npz", "rewind_ep5.npz", "weights_rewound.npz"])
def test_the_rewind_point_is_no_level(tmp_path, name):
    layout = find_levels(tree(tmp_path, "level0.npz", "level1.npz", name))
    assert weights(layout) == ["level0.npz", "level1.npz"]
    assert layout.rewind == (tmp_path / name,)


def test_one_folder_a_level(tmp_path):
    for n in (0, 1, 2, 10, 3, 4, 5, 6, 7, 8, 9):
        tree(tmp_path / f"round-{n}", "model.safetensors", "optimizer.npz")
        if n:
            write(tmp_path / f"round-{n}" / "mask.npz")
    layout = find_levels(tmp_path)
    assert [f.weights.parent.name for f in layout.levels[0]] == [f"round-{n}" for n in range(11)]
    assert [f.masks and f.masks.parent.name for f in layout.levels[0]][-1] == "round-10"
    assert layout.levels[0][0].masks is None


def test_masks_that_may_belong_to_the_next_level_are_refused(tmp_path):
    for n in (100, 200):
        tree(tmp_path / f"checkpoint-{n}", "model.npz", "mask.npz")
    with pytest.raises(ValueError, match="checkpoint-100: must not leave open whether its masks"):
        find_levels(tmp_path)


def test_seeds_are_sub_folders(tmp_path):
    for seed in ("seed2", "seed10", "seed1"):
        tree(tmp_path / seed, "0.npz", "1.npz", "init.npz")
    (tmp_path / "logs").mkdir()
    layout = find_levels(tmp_path)
    assert layout.seeds == ("seed1", "seed2", "seed10")
    assert [weights(layout, s) for s in range(3)] == [["0.npz", "1.npz"]] * 3
    assert layout.rewind == tuple(tmp_path / s / "init.npz" for s in layout.seeds)


def test_numbered_folders_with_several_checkpoints_are_seeds(tmp_path):
    for seed in ("0", "1"):
        tree(tmp_path / seed, "level0.npz", "level1.npz")
    assert find_levels(tmp_path).seeds == ("0", "1")


def test_levels_saved_by_a_run_of_ours(tmp_path):
    for seed in (0, 1):
        tree(tmp_path / "levels" / f"seed{seed}", "level00.safetensors", "level01.safetensors")
    write(tmp_path / "tickets" / "seed0-level00.safetensors")
    layout = find_levels(tmp_path / "levels")
    assert layout.kind == "saved levels" and layout.seeds == ("seed0", "seed1")
    assert layout.rewind == (tmp_path / "tickets" / "seed0-level00.safetensors", None)
    for name in ("config.json", "flow.csv"):
        (tmp_path / name).write_text("{}")
    assert find_levels(tmp_path) == layout


ONE_LINE = [
    ((), "must hold checkpoints, there are none"),
    (("level0.npz", "level1.npz", "level3.npz", "level6.npz"), "missing level 2, 4, 5$"),
    (("level2.npz", "level3.npz"), "missing level 0, 1$"),
    (("0.npz", "1.npz", "3.npz"), "missing level 2$"),
    (
        ("level0.npz", "level1.npz", "level1.safetensors"),
        "one file for level 1, got level1.npz, lev",
    ),
    (("level0.npz", "level00.npz"), "one file for level 0, got"),
    (("a.npz", "b.npz", "b.safetensors"), "one file for b, got b.npz, b.safetensors"),
    (("seed0_level0.npz", "seed1_level0.npz"), "give each seed a folder of its own"),
    (("a/0.npz", "a/1.npz"), "must hold several seeds or be one, it holds only a$"),
    (("a/0.npz", "a/1.npz", "b/0.npz"), "same levels, b is missing level 1$"),
    (("a/0.npz", "a/1.npz", "b/1.npz", "b/2.npz"), "same levels, a is missing level 2$"),
    (("a/level0.npz", "a/level2.npz", "b/level0.npz"), "missing level 1$"),
    (("mask0.npz", "mask1.npz"), "must hold weights, it holds only mask0.npz, mask1.npz"),
    (("a.npz", "b.npz", "mask.npz"), "one mask file a level, got 1 for 2 levels"),
    (("level0.npz", "level1.npz", "mask1.npz", "mask2.npz", "mask3.npz"), "got 3 for 2 levels"),
    (("level0.npz", "init.npz", "rewind.npz"), "one file of initial weights, got init.npz, rew"),
    (("level0/a.npz", "level0/b.npz", "level1/a.npz"), "must hold one checkpoint of one level"),
]


@pytest.mark.parametrize(("names", "message"), ONE_LINE, ids=[m for _, m in ONE_LINE])
def test_bad_folders_get_one_line(tmp_path, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_levels(tree(tmp_path, *names))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_paths_that_are_no_run_get_one_line(tmp_path):
    with pytest.raises(ValueError, match="must exist, there is no such file or folder"):
        find_levels(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no tensors")
    with pytest.raises(ValueError, match=r"notes.txt: .* it is something else"):
        find_levels(tmp_path / "notes.txt")
    for name in ("config.json", "flow.csv"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="must hold levels/, made with --save-levels"):
        find_levels(tmp_path)


@pytest.fixture(scope="module")
def open_lth(tmp_path_factory):
    pytest.importorskip("torch")
    import open_lth_files

    return open_lth_files.write_run(tmp_path_factory.mktemp("open_lth"))


def test_levels_of_open_lth(open_lth):
    for path in (open_lth, open_lth.parent):
        layout = find_levels(path)
        assert layout.kind == "open_lth"
        assert layout.seeds == ("replicate_1", "replicate_2")
        for replicate, levels, rewind in zip(*layout[1:], strict=True):
            mains = [open_lth / replicate / f"level_{n}" / "main" for n in range(3)]
            assert rewind == mains[0] / "model_ep2_it218.pth"
            files = [(main / "model_ep160_it0.pth", main / "mask.pth") for main in mains]
            assert list(levels) == files
    alone = find_levels(open_lth / "replicate_2")
    assert alone.seeds == ("0",) and alone.levels == layout.levels[1:]
    for path in (
        open_lth / "replicate_2" / "level_1",
        open_lth / "replicate_2" / "level_1" / "main",
    ):
        assert find_levels(path).levels == ((layout.levels[1][1],),)


def test_pretraining_of_open_lth_is_the_rewind_point_if_level_0_has_none(open_lth, tmp_path):
    import shutil

    run = shutil.copytree(open_lth / "replicate_1", tmp_path / "replicate_1")
    (run / "level_0" / "main" / "model_ep2_it218.pth").unlink()
    expected = run / "level_pretrain" / "main" / "model_ep2_it218.pth"
    assert find_levels(run).rewind == (expected,)
    shutil.rmtree(run / "level_pretrain")
    assert find_levels(run).rewind == (None,)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("level_1", "missing level 1$"),
        ("level_0", "missing level 0$"),
        ("level_2/main/model_ep160_it0.pth", "level_2/main: must hold model_ep160_it0.pth"),
        ("level_2/main/mask.pth", "level_2/main: must hold mask.pth"),
        ("level_1/main/model_ep*", r"level_1/main: must hold model_ep\*_it\*.pth, there is none"),
    ],
)
def test_unfinished_runs_of_open_lth(open_lth, tmp_path, gone, message):
    import shutil

    run = shutil.copytree(open_lth / "replicate_1", tmp_path / "replicate_1")
    for path in run.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=message):
        find_levels(run)


def test_replicates_of_open_lth_must_have_the_same_levels(open_lth, tmp_path):
    import shutil

    run = shutil.copytree(open_lth, tmp_path / "run")
    shutil.rmtree(run / "replicate_2" / "level_2")
    with pytest.raises(ValueError, match="replicate_2 is missing level 2"):
        find_levels(run)
    shutil.rmtree(run / "replicate_2")
    assert find_levels(run).seeds == ("replicate_1",)


def test_two_runs_of_open_lth_are_not_seeds(tmp_path):
    for name in ("lottery_aa", "lottery_bb"):
        (tmp_path / name / "replicate_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="one run of open_lth, it holds lottery_aa, lottery_bb"):
        find_levels(tmp_path)


MANIFEST = {
    "seeds": {
        "first": [{"weights": "z/dense.npz"}, {"weights": "a.npz", "masks": "a-mask.npz"}],
        "second": [{"weights": "q.npz"}, {"weights": "b.npz"}],
    },
    "rewind": {"second": "start.npz"},
}
TOML = """
[[seeds.first]]
weights = "z/dense.npz"
[[seeds.first]]
weights = "a.npz"
masks = "a-mask.npz"
[[seeds.second]]
weights = "q.npz"
[[seeds.second]]
weights = "b.npz"
[rewind]
second = "start.npz"
"""


@pytest.mark.parametrize("name", ["manifest.json", "manifest.toml"])
def test_a_manifest_decides(tmp_path, name):
    tree(tmp_path, "z/dense.npz", "a.npz", "a-mask.npz", "q.npz", "b.npz", "start.npz", "else.npz")
    (tmp_path / name).write_text(json.dumps(MANIFEST) if name.endswith("json") else TOML)
    layout = find_levels(tmp_path)
    assert layout == find_levels(tmp_path / name)
    assert layout.kind == "sequence" and layout.seeds == ("first", "second")
    assert [weights(layout, s) for s in (0, 1)] == [["dense.npz", "a.npz"], ["q.npz", "b.npz"]]
    assert layout.levels[0][1].masks == tmp_path / "a-mask.npz"
    assert layout.rewind == (None, tmp_path / "start.npz")


def one(name):
    return {"seeds": {"0": [{"weights": name}]}}


BAD_MANIFESTS = [
    ("{", "must be a readable manifest"),
    ("[" * 100_000, "must be a readable manifest"),
    ("\xff\xfe", "must be a readable manifest"),
    ("[]", "must be a table, got 'list'"),
    ({}, "seeds"),
    ({"seeds": {}}, "seeds"),
    ({"seeds": {"0": []}}, "seed 0 must be a list of levels"),
    ({"seeds": {"0": "a.npz"}}, "seed 0 must be a list of levels"),
    ({"seeds": {"0": ["a.npz"]}}, "a level of seed 0 must be a table of weights"),
    ({"seeds": {"0": [{"masks": "a.npz"}]}}, "a level of seed 0 must be a table of weights"),
    ({**one("a.npz"), "seed": {}}, "must be"),
    ({**one("a.npz"), "rewind": {"1": "a.npz"}}, "rewind must name seeds, got .'1'"),
    (one(7), "a path must be relative and stay within the folder, got 7"),
    (one(""), "a path must be relative"),
    (one("a\0b"), "a path must be relative"),
    (one("../out.npz"), "a path must be relative and stay within the folder"),
    (one("sub/../../out.npz"), "a path must be relative and stay within the folder"),
    (one("/etc/passwd"), "a path must be relative and stay within the folder"),
    (one("link.npz"), "a path must be relative and stay within the folder"),
    (one("linked/out.npz"), "a path must be relative and stay within the folder"),
    (one("loop.npz"), "a path must lead to a file"),
    (one("x" * 5000), "a path must lead to a file"),
    (one("nowhere.npz"), "a path must lead to a file, got 'nowhere.npz'"),
    (one("notes.txt"), r"notes.txt: .* it is something else"),
    (
        {"seeds": {"0": [{"weights": "a.npz"}] * 2, "1": [{"weights": "a.npz"}]}},
        "1 is missing level 1",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD_MANIFESTS, ids=range(len(BAD_MANIFESTS)))
def test_bad_manifests_get_one_line(tmp_path, content, message):
    folder = tree(tmp_path / "run", "a.npz")
    write(tmp_path / "out.npz")
    os.symlink(tmp_path / "out.npz", folder / "link.npz")
    os.symlink(tmp_path, folder / "linked")
    os.symlink(folder / "loop.npz", folder / "loop.npz")
    (folder / "notes.txt").write_text("no tensors")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "manifest.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=message) as caught:
        find_levels(folder)
    assert "\n" not in str(caught.value)
    assert re.match(re.escape(str(folder)), str(caught.value))


def test_two_manifests_and_huge_ones_are_refused(tmp_path):
    tree(tmp_path, "a.npz")
    (tmp_path / "manifest.json").write_text(json.dumps(one("a.npz")) + " " * 1_000_000)
    with pytest.raises(ValueError, match="must be at most 1,000,000 bytes"):
        find_levels(tmp_path)
    (tmp_path / "manifest.toml").write_text("")
    with pytest.raises(ValueError, match="must hold one manifest"):
        find_levels(tmp_path)
