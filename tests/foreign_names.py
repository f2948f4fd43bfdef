"""Names and shapes of the parameters of networks as other code stores them.

Data, written from the module definitions named in each docstring; `test_block_rules.py` compares
the generators with the state dicts of torch models built the same way.
"""

Shapes = dict[str, tuple[int, ...]]


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _dense(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _block(
    name: str, inputs: int, width: int, *, expansion: int, shortcut: str | None, strides: bool
) -> Shapes:
    """One residual block with the members torchvision gives it; only `shortcut` differs."""
    outputs = width * expansion
    convs = [(inputs, width, 3), (width, width, 3)]
    if expansion > 1:
        convs = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
    shapes: Shapes = {}
    for i, (a, b, size) in enumerate(convs, start=1):
        shapes[f"{name}.conv{i}.weight"] = (b, a, size, size)
        shapes |= _norm(f"{name}.bn{i}", b)
    if shortcut is not None and (strides or inputs != outputs):
        shapes[f"{name}.{shortcut}.0.weight"] = (outputs, inputs, 1, 1)
        shapes |= _norm(f"{name}.{shortcut}.1", outputs)
    return shapes


def staged_resnet(
    depths: tuple[int, ...],
    *,
    width: int,
    expansion: int = 1,
    stem: int = 3,
    shortcut: str | None = "downsample",
    head: str = "fc",
    num_classes: int = 10,
) -> Shapes:
    """ResNets with ``layer1.0.conv1``.

    pytorch/vision `torchvision/models/resnet.py` and timm (stem 7), VITA-Group/CV_LTH_Pre-training
    (stem 3), bearpaw/pytorch-classification, chenyaofo/pytorch-cifar-models (``downsample``, head
    ``fc``), kuangliu/pytorch-cifar (``shortcut``, head ``linear``),
    akamaster/pytorch_resnet_cifar10 (no tensors in the shortcut, head ``linear``).
    """
    shapes: Shapes = {"conv1.weight": (width, 3, stem, stem)} | _norm("bn1", width)
    inputs = width
    for s, depth in enumerate(depths):
        for b in range(depth):
            shapes |= _block(
                f"layer{s + 1}.{b}",
                inputs,
                width * 2**s,
                expansion=expansion,
                shortcut=shortcut,
                strides=s > 0 and b == 0,
            )
            inputs = width * 2**s * expansion
    return shapes | _dense(head, inputs, num_classes)


def resnet50(num_classes: int = 10) -> Shapes:
    """The ResNet-50 of VITA-Group/CV_LTH_Pre-training: torchvision's with a 3x3 stem."""
    return staged_resnet((3, 4, 6, 3), width=64, expansion=4, num_classes=num_classes)


def open_lth_resnet(blocks_per_stage: int, *, width: int = 16) -> Shapes:
    """facebookresearch/open_lth `models/cifar_resnet.py`: blocks numbered through all stages."""
    shapes: Shapes = {"conv.weight": (width, 3, 3, 3)} | _norm("bn", width)
    inputs = width
    for k in range(3 * blocks_per_stage):
        outputs = width * 2 ** (k // blocks_per_stage)
        shapes |= _block(
            f"blocks.{k}", inputs, outputs, expansion=1, shortcut="shortcut", strides=False
        )
        inputs = outputs
    return shapes | _dense("fc", inputs, 10)


def flax_resnet(depths: tuple[int, ...], width: int = 8) -> Shapes:
    """google/flax `examples/imagenet/models.py`: blocks that Flax numbered through all stages."""
    shapes: Shapes = {"conv_init/kernel": (7, 7, 3, width)}
    k, inputs = 0, width
    for s, depth in enumerate(depths):
        outputs = width * 2**s
        for _ in range(depth):
            shapes[f"ResNetBlock_{k}/Conv_0/kernel"] = (3, 3, inputs, outputs)
            shapes[f"ResNetBlock_{k}/Conv_1/kernel"] = (3, 3, outputs, outputs)
            shapes[f"ResNetBlock_{k}/BatchNorm_0/scale"] = (outputs,)
            if inputs != outputs:
                shapes[f"ResNetBlock_{k}/conv_proj/kernel"] = (1, 1, inputs, outputs)
            k, inputs = k + 1, outputs
    return shapes | {"Dense_0/kernel": (inputs, 10), "Dense_0/bias": (10,)}


def bert(
    *, num_layers: int = 12, width: int = 768, vocabulary: int = 30_522, prefix: str = "bert."
) -> Shapes:
    """huggingface/transformers `BertForSequenceClassification`, two classes."""
    shapes: Shapes = {
        f"{prefix}embeddings.word_embeddings.weight": (vocabulary, width),
        f"{prefix}embeddings.position_embeddings.weight": (512, width),
        f"{prefix}embeddings.token_type_embeddings.weight": (2, width),
    } | _norm(f"{prefix}embeddings.LayerNorm", width)
    for i in range(num_layers):
        layer = f"{prefix}encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{layer}.attention.self.{part}", width, width)
        shapes |= _dense(f"{layer}.attention.output.dense", width, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width)
        shapes |= _dense(f"{layer}.intermediate.dense", width, 4 * width)
        shapes |= _dense(f"{layer}.output.dense", 4 * width, width)
        shapes |= _norm(f"{layer}.output.LayerNorm", width)
    return shapes | _dense(f"{prefix}pooler.dense", width, width) | _dense("classifier", width, 2)


def flax_bert(**settings) -> Shapes:
    """The same as `FlaxBertForSequenceClassification` stores it."""
    shapes = {}
    for name, shape in bert(**settings).items():
        path = name.replace(".", "/")
        if "LayerNorm" in name:
            shapes[path.replace("/weight", "/scale")] = shape
        elif "embeddings" in name:
            shapes[path.replace("/weight", "/embedding")] = shape
        else:
            shapes[path.replace("/weight", "/kernel")] = shape[::-1]
    return shapes


def timm_vit(*, num_layers: int = 12, width: int = 768) -> Shapes:
    """huggingface/pytorch-image-models `timm/models/vision_transformer.py`, 1,000 classes."""
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 197, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(num_layers):
        shapes |= _norm(f"blocks.{i}.norm1", width)
        shapes |= _dense(f"blocks.{i}.attn.qkv", width, 3 * width)
        shapes |= _dense(f"blocks.{i}.attn.proj", width, width)
        shapes |= _norm(f"blocks.{i}.norm2", width)
        shapes |= _dense(f"blocks.{i}.mlp.fc1", width, 4 * width)
        shapes |= _dense(f"blocks.{i}.mlp.fc2", 4 * width, width)
    return shapes | _norm("norm", width) | _dense("head", width, 1000)


def hf_vit(*, num_layers: int = 12, width: int = 768) -> Shapes:
    """huggingface/transformers `ViTForImageClassification`, 1,000 classes."""
    shapes: Shapes = {
        "vit.embeddings.cls_token": (1, 1, width),
        "vit.embeddings.position_embeddings": (1, 197, width),
        "vit.embeddings.patch_embeddings.projection.weight": (width, 3, 16, 16),
        "vit.embeddings.patch_embeddings.projection.bias": (width,),
    }
    for i in range(num_layers):
        layer = f"vit.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{layer}.attention.attention.{part}", width, width)
        shapes |= _dense(f"{layer}.attention.output.dense", width, width)
        shapes |= _dense(f"{layer}.intermediate.dense", width, 4 * width)
        shapes |= _dense(f"{layer}.output.dense", 4 * width, width)
        shapes |= _norm(f"{layer}.layernorm_before", width) | _norm(
            f"{layer}.layernorm_after", width
        )
    return shapes | _norm("vit.layernorm", width) | _dense("classifier", width, 1000)


def torchvision_vit(*, num_layers: int = 12, width: int = 768) -> Shapes:
    """pytorch/vision `torchvision/models/vision_transformer.py`, 1,000 classes."""
    shapes: Shapes = {
        "class_token": (1, 1, width),
        "conv_proj.weight": (width, 3, 16, 16),
        "conv_proj.bias": (width,),
        "encoder.pos_embedding": (1, 197, width),
    }
    for i in range(num_layers):
        layer = f"encoder.layers.encoder_layer_{i}"
        shapes |= _norm(f"{layer}.ln_1", width)
        shapes[f"{layer}.self_attention.in_proj_weight"] = (3 * width, width)
        shapes[f"{layer}.self_attention.in_proj_bias"] = (3 * width,)
        shapes |= _dense(f"{layer}.self_attention.out_proj", width, width)
        shapes |= _norm(f"{layer}.ln_2", width)
        shapes |= _dense(f"{layer}.mlp.0", width, 4 * width)
        shapes |= _dense(f"{layer}.mlp.3", 4 * width, width)
    return shapes | _norm("encoder.ln", width) | _dense("heads.head", width, 1000)


def big_vision_vit(*, num_layers: int = 12, width: int = 768) -> Shapes:
    """google-research/big_vision `models/vit.py`: kernels by head, query biases of two axes."""
    heads = (12, width // 12)
    shapes: Shapes = {
        "cls": (1, 1, width),
        "pos_embedding": (1, 197, width),
        "embedding/kernel": (16, 16, 3, width),
    }
    for i in range(num_layers):
        layer = f"Transformer/encoderblock_{i}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}/MultiHeadDotProductAttention_0/{part}/kernel"] = (width, *heads)
            shapes[f"{layer}/MultiHeadDotProductAttention_0/{part}/bias"] = heads
        shapes[f"{layer}/MultiHeadDotProductAttention_0/out/kernel"] = (*heads, width)
        shapes[f"{layer}/MlpBlock_0/Dense_0/kernel"] = (width, 4 * width)
        shapes[f"{layer}/MlpBlock_0/Dense_1/kernel"] = (4 * width, width)
        shapes[f"{layer}/LayerNorm_0/scale"] = (width,)
    return shapes | {"head/kernel": (width, 1000), "head/bias": (1000,)}
