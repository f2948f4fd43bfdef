"""A tiny checkpoint and tiny tasks on disk, as `experiments.language_flow` reads them."""

import json
from pathlib import Path

import numpy as np
from bert_inputs import hugging_face_sizes, random_checkpoint
from safetensors.numpy import save_file
from text_inputs import WORDS

LETTERS = [word for word in WORDS if len(word) == 1 and word.isalpha()]
SIZES = hugging_face_sizes(num_layers=2, width=12, vocabulary=len(WORDS))


def write_checkpoint(folder: Path, **changed) -> Path:
    """Random weights, sizes and a vocabulary of a few words; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_checkpoint(num_layers=2, width=12, vocabulary=len(WORDS))
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | SIZES | changed))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def write_rows(folder: Path, task: str, split: str, rows: list[dict]) -> None:
    """One split of a task as JSON lines."""
    path = folder / task / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def planted_rows(num: int, *, seed: int) -> list[dict]:
    """Pairs of texts that are equivalent if both begin with the same letter."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num):
        first, second = (list(rng.choice(LETTERS, rng.integers(1, 9))) for _ in range(2))
        label = int(rng.random() < 0.5)
        if label:
            second[0] = first[0]
        elif first[0] == second[0]:
            second[0] = LETTERS[LETTERS.index(first[0]) - 1]
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "label": label})
    return rows


def write_tasks(folder: Path) -> Path:
    """Rows of MRPC and WNLI; returns the folder.

    As many of both, the longest as long, so that they share one compiled program.
    """
    for seed, task in enumerate(("mrpc", "wnli")):
        write_rows(folder, task, "train", planted_rows(24, seed=seed))
        write_rows(folder, task, "validation", planted_rows(16, seed=seed + 4))
    return folder
