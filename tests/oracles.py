"""Slow, plain references: loops over seeds, levels and blocks, written from the definitions."""

import math

import numpy as np
from safetensors.numpy import load_file


def loop_sigma_paper(shares, scale_factors):
    """Mean over levels of ln lambda / ln c, [seed block]."""
    num_seeds, num_levels, num_blocks = shares.shape
    sigma = np.empty((num_seeds, num_blocks))
    for s in range(num_seeds):
        for i in range(num_blocks):
            terms = []
            for n in range(num_levels - 1):
                eigenvalue = shares[s, n + 1, i] / shares[s, n, i]
                terms.append(math.log(eigenvalue) / math.log(scale_factors[n]))
            sigma[s, i] = sum(terms) / len(terms)
    return sigma


def loop_polynomial(values, scale_factors, degree):
    """Leading least-squares coefficient of `values` in l = sum of ln c, [seed block]."""
    time = [0.0]
    for c in scale_factors:
        time.append(time[-1] + math.log(c))
    num_seeds, _, num_blocks = values.shape
    return np.array(
        [
            [np.polynomial.Polynomial.fit(time, values[s, :, i], degree, domain=[]).coef[-1]
             for i in range(num_blocks)]
            for s in range(num_seeds)
        ]
    )  # fmt: skip


def loop_log_ratio(shares, num_listed):
    """ln M_i - mean of ln M_k over the first blocks, [seed level block]."""
    ratios = np.empty_like(shares)
    for s, n, i in np.ndindex(*shares.shape):
        centre = sum(math.log(shares[s, n, k]) for k in range(num_listed)) / num_listed
        ratios[s, n, i] = math.log(shares[s, n, i]) - centre
    return ratios


def loop_t_interval(values, quantile):
    """Mean -+ quantile sd / sqrt(S) of a list; the caller looks the quantile up in a table."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half_width = quantile * math.sqrt(variance / len(values))
    return mean - half_width, mean + half_width


def resnet50_convolutions():
    """(stage, kernel width, in, out) of the 52 body convolutions of a bottleneck ResNet-50.

    The CIFAR stem, never pruned, leaves 64 channels; stages have 3, 4, 6, 3 blocks of planes 64,
    128, 256, 512 and expansion 4; the first block of each stage has a 1x1 projection.
    """
    convolutions = []
    width_in = 64
    for stage, (num_blocks, planes) in enumerate(
        zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)
    ):
        for block in range(num_blocks):
            convolutions.append((stage, 1, width_in, planes))
            convolutions.append((stage, 3, planes, planes))
            convolutions.append((stage, 1, planes, 4 * planes))
            if block == 0:
                convolutions.append((stage, 1, width_in, 4 * planes))
            width_in = 4 * planes
    return convolutions


def resnet50_tensors():
    """Sizes, Kaiming fan_out standard deviations and stages of `resnet50_convolutions`."""
    convolutions = resnet50_convolutions()
    sizes = np.array([k * k * i * o for _, k, i, o in convolutions])
    scales = np.array([math.sqrt(2 / (k * k * o)) for _, k, _, o in convolutions])
    return sizes, scales, np.array([stage for stage, *_ in convolutions])


def simulate_gaussian_null(sizes, scales, block_of, densities, *, seed):
    """Shares [level block] of drawn Gaussian tensors, pruned together by magnitude."""
    rng = np.random.default_rng(seed)
    weights = [
        abs(rng.standard_normal(n, dtype=np.float32)) * np.float32(s)
        for n, s in zip(sizes, scales, strict=True)
    ]
    everything = np.concatenate(weights)
    shares = np.zeros((len(densities), max(block_of) + 1))
    for n, density in enumerate(densities):
        num_pruned = everything.size - round(density * everything.size)
        threshold = np.partition(everything, num_pruned)[num_pruned]
        kept = [float(w[w >= threshold].sum(dtype=np.float64)) for w in weights]
        for magnitude, block in zip(kept, block_of, strict=True):
            if block >= 0:
                shares[n, block] += magnitude / sum(kept)
    return shares


def loop_prune(scores, masks, prunable, counts):
    """Prunes one weight at a time: always the first of the lowest surviving scores."""
    names = sorted(masks)
    # Elements of JAX arrays take a program each.
    scores = {name: np.asarray(scores[name]) for name in names}
    masks = {name: np.array(masks[name]) for name in names}
    chosen = [name for name, can in zip(names, prunable, strict=True) if can]
    groups = [[name] for name in chosen] if len(counts) > 1 else [chosen]
    for group, count in zip(groups, counts, strict=True):
        for _ in range(count):
            alive = [
                (float(scores[name][i]), k, i)
                for k, name in enumerate(group)
                for i in np.ndindex(masks[name].shape)
                if masks[name][i]
            ]
            _, k, i = min(alive)
            masks[group[k]][i] = False
    return masks


def loop_flow(params, masks, blocks):
    """W_i and survivors by block, summed one leaf at a time in float64."""
    num_blocks = max(blocks) + 1
    magnitude, surviving, total = np.zeros(num_blocks), np.zeros(num_blocks, int), 0.0
    for leaf, mask, block in zip(params, masks, blocks, strict=True):
        kept = np.abs(np.asarray(leaf, float))[np.asarray(mask)]
        total += kept.sum()
        if block >= 0:
            magnitude[block] += kept.sum()
            surviving[block] += len(kept)
    return magnitude, surviving, total


def loop_read_shares(files, blocks):
    """M [seed level block] of saved levels of ours; the last block is everything outside."""
    shares = np.zeros((len(files), len(files[0]), len(blocks)))
    for s, n in np.ndindex(shares.shape[:2]):
        tensors = load_file(files[s][n])
        for name, weight in tensors.items():
            path = name.removeprefix("params/")
            if path == name or not path.endswith("kernel"):
                continue
            inside = [i for i, block in enumerate(blocks[:-1]) if path.startswith(block + "/")]
            block = inside[0] if inside else len(blocks) - 1
            kept = weight.astype(float)[tensors[f"masks/{path}"]]
            shares[s, n, block] += abs(kept).sum()
        shares[s, n] /= shares[s, n].sum()
    return shares
