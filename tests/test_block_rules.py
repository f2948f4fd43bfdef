"""Blocks of networks made elsewhere, by their names; parameter counts as published."""

import math
import re
from typing import Any

import foreign_names as foreign
import jax
import pytest

from imp_rg.foreign.block_rules import NAMES, choose_rules, make_network_partition
from imp_rg.models import make_model
from imp_rg.pytree import leaf_paths, matches

STAGES_RESNET50 = (212_992, 1_212_416, 7_077_888, 14_942_208)
BERT_LAYER, BERT_POOLER = 7_077_888, 589_824

CIFAR_RESNETS = {
    "chenyaofo, bearpaw": foreign.staged_resnet((3, 3, 3), width=16),
    "option B": foreign.staged_resnet((3, 3, 3), width=16, shortcut="shortcut", head="linear"),
    "open_lth": foreign.open_lth_resnet(3),
}
TINY = foreign.staged_resnet((2, 2, 2), width=4)


def partition_of(shapes, blocks: Any = "auto", **settings):
    return make_network_partition(shapes, choose_rules(shapes, blocks, **settings))


def prunable_names(shapes, rules):
    return {name for name in shapes if matches(name, rules.prunable)}


def own_shapes(**settings):
    tree = make_model("resnet20", num_classes=10, **settings).shapes((32, 32, 3))
    leaves = jax.tree.leaves(tree)
    return {path: leaf.shape for path, leaf in zip(leaf_paths(tree), leaves, strict=True)}


@pytest.mark.parametrize(
    ("blocks_per_stage", "total"),
    [(2, 174_128), (3, 270_896), (5, 464_432), (7, 657_968), (9, 851_504)],
)
def test_open_lth_resnets_have_the_published_counts(blocks_per_stage, total):
    shapes = foreign.open_lth_resnet(blocks_per_stage)
    partition = partition_of(shapes)
    assert sum(partition.sizes) == total
    sizes = dict(zip(partition.names, partition.sizes, strict=True))
    assert [sizes[f"stage{s}/block1"] for s in (1, 2, 3)] == [4_608, 18_432, 73_728]
    assert [sizes[f"stage{s}/block0"] for s in (1, 2, 3)] == [4_608, 14_336, 57_344]
    assert sizes["rest"] == 432 + 640
    assert partition.names == (
        *(f"stage{s}/block{b}" for s in (1, 2, 3) for b in range(blocks_per_stage)),
        "rest",
    )


@pytest.mark.parametrize("shapes", CIFAR_RESNETS.values(), ids=CIFAR_RESNETS)
def test_cifar_resnets_with_projections_are_alike(shapes):
    rules = choose_rules(shapes)
    partition = make_network_partition(shapes, rules)
    reference = partition_of(CIFAR_RESNETS["open_lth"])
    assert (rules.name, rules.denominator) == ("cifar-resnet", "prunable")
    assert (partition.names, partition.sizes) == (reference.names, reference.sizes)


def test_option_a_has_no_weights_in_its_shortcuts():
    shapes = foreign.staged_resnet((3, 3, 3), width=16, shortcut=None, head="linear")
    partition = partition_of(shapes)
    assert sum(partition.sizes) == 270_896 - 16 * 32 - 32 * 64
    own = partition_of(own_shapes(shortcut="pad"))
    assert (partition.names, partition.sizes) == (own.names, own.sizes)


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_our_own_network_gets_its_own_partition(shortcut):
    model = make_model("resnet20", num_classes=10, shortcut=shortcut)
    shapes = own_shapes(shortcut=shortcut)
    assert partition_of(shapes) == model.partition("block", (32, 32, 3))
    assert partition_of(shapes, masked=shapes) == model.partition("block", (32, 32, 3))


def test_resnet50_has_the_published_stages():
    shapes = foreign.resnet50()
    rules = choose_rules(shapes)
    partition = make_network_partition(shapes, rules)
    assert rules.name == "resnet50-stages"
    assert partition.names == ("stage1", "stage2", "stage3", "stage4")
    assert partition.sizes == STAGES_RESNET50
    assert sum(partition.sizes) == 23_445_504
    assert sum(map(math.prod, shapes.values())) == 23_445_504 + 1_728 + 20_490 + 53_120


def test_masks_decide_on_stem_and_head():
    shapes = foreign.resnet50()
    convs = {name for name, shape in shapes.items() if len(shape) == 4}
    assert partition_of(shapes, masked=convs).names[-1] == "rest"
    assert sum(partition_of(shapes, masked=convs).sizes) == 23_445_504 + 1_728
    without = convs - {name for name in convs if name.startswith(("conv1", "layer2"))}
    partition = partition_of(shapes, masked=without)
    assert partition.names == ("stage1", "stage3", "stage4")


def test_masks_of_biases_prune_no_biases():
    masked = {name for name in TINY if name != "bn1.weight"}
    rules = choose_rules(TINY, masked=masked)
    assert prunable_names(TINY, rules) == {n for n, shape in TINY.items() if len(shape) > 1}


def test_masks_of_every_tensor_leave_the_choice_to_the_preset():
    shapes = foreign.bert(num_layers=2, width=24, vocabulary=50)
    assert partition_of(shapes, masked=shapes) == partition_of(shapes)
    matrices = {name: shape for name, shape in TINY.items() if len(shape) > 1}
    assert partition_of(matrices, "resnet-blocks", masked=matrices).names[-1] == "rest"
    some = {name for name in shapes if "pooler" not in name}
    assert "bert.embeddings.word_embeddings.weight" in prunable_names(
        shapes, choose_rules(shapes, masked=some)
    )


@pytest.mark.parametrize(
    ("depths", "expansion"), [((2, 2, 2, 2), 1), ((3, 4, 6, 3), 1), ((3, 4, 23, 3), 4)]
)
def test_other_resnets_fall_into_residual_blocks(depths, expansion):
    shapes = foreign.staged_resnet(depths, width=8, expansion=expansion, stem=7)
    rules = choose_rules(shapes)
    partition = make_network_partition(shapes, rules)
    assert rules.name == "resnet-blocks"
    assert partition.names == tuple(
        f"stage{s + 1}/block{b}" for s, depth in enumerate(depths) for b in range(depth)
    )
    head_and_stem = {"conv1.weight", "fc.weight"}
    assert not prunable_names(shapes, rules) & head_and_stem
    by_stage = partition_of(shapes, "resnet50-stages")
    assert by_stage.names == ("stage1", "stage2", "stage3", "stage4")
    assert sum(by_stage.sizes) == sum(partition.sizes)


def test_blocks_numbered_throughout_are_divided_by_width():
    partition = partition_of(foreign.flax_resnet((2, 1, 2, 1)))
    assert partition.names == (
        *("stage1/block0", "stage1/block1", "stage2/block0"),
        *("stage3/block0", "stage3/block1", "stage4/block0"),
    )


def test_stages_and_blocks_are_counted_our_way():
    shapes = foreign.staged_resnet((2, 2, 2, 2), width=4)
    original = partition_of(shapes)

    def from_zero(match):  # as Hugging Face stores them
        return f"resnet.encoder.stages.{int(match[1]) - 1}.layers."

    renamed = partition_of({re.sub(r"layer(\d)\.", from_zero, n): s for n, s in shapes.items()})
    assert (renamed.names, renamed.sizes) == (original.names, original.sizes)


@pytest.mark.parametrize("make", [foreign.bert, foreign.flax_bert])
@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_bert_has_the_published_layers(make, prefix):
    shapes = make(prefix=prefix)
    rules = choose_rules(shapes)
    partition = make_network_partition(shapes, rules)
    assert rules.name == "bert-layers"
    assert partition.names == (*(f"layer{i}" for i in range(12)), "rest")
    assert partition.sizes == (*[BERT_LAYER] * 12, BERT_POOLER)
    assert sum(partition.sizes) == 85_524_480


def test_an_encoder_alone_is_a_bert():
    shapes = {
        name.removeprefix("encoder."): shape
        for name, shape in foreign.bert(prefix="").items()
        if name.startswith("encoder.")
    }
    assert partition_of(shapes).sizes == (BERT_LAYER,) * 12


@pytest.mark.parametrize(
    "make",
    [foreign.timm_vit, foreign.hf_vit, foreign.torchvision_vit, foreign.big_vision_vit],
)
def test_vits_have_one_block_a_layer(make):
    shapes = make()
    rules = choose_rules(shapes)
    partition = make_network_partition(shapes, rules)
    assert rules.name == "vit-layers"
    assert partition.names == tuple(f"layer{i}" for i in range(12))
    assert partition.sizes == (BERT_LAYER,) * 12  # the layers of ViT-B are as large as BERT's


@pytest.mark.parametrize(
    ("name", "preset", "blocks"),
    [
        ("block{}.layer.0.conv{}.weight", "cifar-resnet", ("stage1/block0", "stage2/block0")),
        ("block{}/unit1/conv{}/kernel", "cifar-resnet", ("stage1/block0", "stage2/block0")),
        ("distilbert.transformer.layer.{}.attention.q_lin.{}.weight", "bert-layers", ("layer0",)),
        ("bert/encoder/layer_{}/attention/self/query/{}/kernel", "bert-layers", ("layer0",)),
    ],
    ids=["Wide ResNet", "Big Vision ResNet", "DistilBERT", "TensorFlow BERT"],
)
def test_rarer_names(name, preset, blocks):
    shapes = {name.format(i, j): (4, 4, 3, 3) for i in (1, 2, 3) for j in (1, 2)}
    rules = choose_rules(shapes)
    assert rules.name == preset
    assert tuple(rules.patterns)[: len(blocks)] == blocks
    assert [len(tensors) for tensors in rules.patterns.values()] == [2, 2, 2]


def test_unknown_networks_fall_into_tensors():
    shapes = {
        "features.0.weight": (8, 3, 3, 3),
        "features.0.bias": (8,),
        "classifier.weight": (10, 8),
        "tok[0].embedding.weight": (100, 8),
    }
    rules = choose_rules(shapes)
    assert rules.name == "per-tensor"
    assert list(rules.patterns) == ["features.0.weight", "classifier.weight"]
    partition = partition_of(shapes, masked=["tok[0].embedding.weight"])
    assert (partition.names, partition.sizes) == (("tok[0].embedding.weight",), (800,))


@pytest.mark.parametrize(
    "shapes",
    [
        # one convolution a block: the Sequential of a plain network
        {"layer1.0.weight": (8, 3, 3, 3), "layer2.0.weight": (8, 8, 3, 3), "fc.weight": (10, 8)},
        # two networks in one
        {f"{who}.{name}": shape for who in ("student", "teacher") for name, shape in TINY.items()},
    ],
    ids=["sequential", "two networks"],
)
def test_look_alikes_are_not_resnets(shapes):
    assert choose_rules(shapes).name == "per-tensor"


def test_a_preset_for_another_family_is_refused():
    for name in NAMES[:-1]:
        with pytest.raises(ValueError, match=f"^blocks: {name} must find tensors named such as"):
            choose_rules({"fc1.weight": (8, 4), "fc2.weight": (2, 8)}, name)
    with pytest.raises(ValueError, match="bert-layers must find"):
        choose_rules(foreign.timm_vit(num_layers=1, width=12), "bert-layers")
    assert choose_rules(TINY, "per-tensor").name == "per-tensor"


def test_unknown_presets_get_the_nearest():
    with pytest.raises(
        ValueError, match=r"known preset \(nearest: bert-layers, .*got 'bert-layer'"
    ):
        choose_rules(TINY, "bert-layer")


def test_nothing_prunable_is_an_error():
    with pytest.raises(ValueError, match="^blocks: must find a weight .*got 'bias'"):
        choose_rules({"bias": (3,)})
    with pytest.raises(ValueError, match="^blocks: must find a weight"):
        choose_rules(TINY, masked=["fc.bias"])


def write(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def test_a_file_spells_the_rules_out(tmp_path):
    text = """
        denominator = "blocks"
        prunable = ["layer*.conv?.weight"]
        [blocks]
        early = ["layer1.*", "layer2.0.*"]
        late = ["layer3.*"]
    """
    path = write(tmp_path, text)
    rules = choose_rules(TINY, path)
    assert rules == choose_rules(TINY, str(path))
    assert (rules.name, rules.denominator) == ("rules.toml", "blocks")
    partition = make_network_partition(TINY, rules)
    assert partition.names == ("early", "late", "rest")
    convs = {n: s for n, s in TINY.items() if re.fullmatch(r"layer.*conv\d.weight", n)}
    assert prunable_names(TINY, rules) == set(convs)
    assert sum(partition.sizes) == sum(map(math.prod, convs.values()))
    only = [name for name in convs if name.startswith(("layer1", "layer2.0"))]
    only += ["layer3.1.conv2.weight"]
    masked = make_network_partition(TINY, choose_rules(TINY, path, masked=only))
    assert sum(masked.sizes) == sum(math.prod(TINY[name]) for name in only)


def test_without_prunable_the_names_decide(tmp_path):
    path = write(tmp_path, 'blocks = {one = ["layer1.*"]}')
    partition = partition_of(TINY, path)
    assert sum(partition.sizes) == sum(partition_of(TINY).sizes)
    assert partition == partition_of(TINY, {"one": ("layer1.*",)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks = [", r"rules\.toml: "),
        ("x = " + "[" * 5000, "readable TOML"),
        ('prunable = ["*"]', "rules.toml: blocks must be a table .*got None"),
        ("blocks = 3", "blocks must be a table .*got 3"),
        ("[blocks]", "blocks must be a table"),
        ('blocks = {a = "layer1"}', "blocks.a must be a list of patterns, got 'layer1'"),
        ("blocks = {a = [1]}", r"blocks.a must be a list of patterns, got \[1\]"),
        ("blocks = {a = []}", r"blocks.a must be a list of patterns, got \[\]"),
        ('prunable = "x"\nblocks = {a = ["*"]}', "prunable must be a list of patterns, got 'x'"),
        ('denominator = "some"\nblocks = {a = ["*"]}', "denominator: must be one of prunable, "),
        ('denominator = 2\nblocks = {a = ["*"]}', "denominator: must be one of .* got 2"),
        ('block = {a = ["*"]}', "must hold blocks, prunable and denominator only, got 'block'"),
        ('prunable = ["x"]\nblocks = {a = ["*"]}', "prunable: every pattern must .* got 'x'"),
        ('blocks = {a = ["layer9.*"]}', "'layer9.*' of block 'a' matches no prunable tensor"),
        ('blocks = {a = ["layer1.*"], b = ["layer1.0.*"]}', "is in a and b"),
        ('blocks = {rest = ["layer1.*"]}', "'rest' is kept"),
    ],
)
def test_bad_files_get_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        partition_of(TINY, write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_unreadable_files_get_one_line(tmp_path):
    with pytest.raises(ValueError, match="none.toml: No such file") as error:
        choose_rules(TINY, tmp_path / "none.toml")
    assert "\n" not in str(error.value)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="readable TOML file, .*bytes.toml"):
        choose_rules(TINY, tmp_path / "bytes.toml")
