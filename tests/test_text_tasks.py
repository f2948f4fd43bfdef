"""Tasks by name, and rows of them: from JSON lines, from prepared sets, from the real files."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from text_inputs import TEXT, make_tokenizer, needs_real_encoder, needs_real_tasks

from imp_rg.data import metrics
from imp_rg.data.text import load_text, score
from imp_rg.data.text.rows import read_questions, read_rows
from imp_rg.data.text.squad import Question, find_answers, make_windows
from imp_rg.data.text.tasks import TASKS, find_task
from imp_rg.data.text.tokenize import load_tokenizer
from imp_rg.foreign.bert_variables import find_checkpoint
from imp_rg.published import rows as published_rows

RTE, STSB, SQUAD = find_task("rte"), find_task("stsb"), find_task("squad")
PAIR = {"sentence1": "a b", "sentence2": "c", "label": 1, "idx": 0}
ASKED = {
    "id": "x",
    "context": "the d, the e.",
    "question": "a ?",
    "answers": {"text": ["the e"], "answer_start": [7]},
}


def write_lines(folder: Path, rows, split="train", compress=False):
    """Rows as JSON lines; text is written as it stands."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    if compress:
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return f"jsonl:{folder}"


def test_names_are_forgiving():
    assert list(TASKS) == "mnli qqp stsb wnli qnli mrpc rte sst2 cola squad".split()
    assert find_task("STS-B").name == "stsb" and find_task("SST_2").name == "sst2"
    with pytest.raises(ValueError, match=r"task: .*\(nearest: rte, .*got 'rtee'"):
        find_task("rtee")


def test_tasks_are_those_of_the_paper():
    def plain(name):
        return name.lower().replace("-", "").removesuffix("v1.1").strip()

    assert [plain(row.row) for row in published_rows(3)] == list(TASKS)


def test_outputs_of_the_heads():
    assert {t.name: t.num_outputs for t in TASKS.values() if t.num_outputs != 2} == {
        "mnli": 3,
        "stsb": 1,
    }


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("inside", ["", "rte"])
def test_json_lines(compress, inside, tmp_path):
    rows = [PAIR, PAIR | {"sentence1": "été", "label": 0}]
    write_lines(tmp_path / inside, rows, "validation", compress)
    found = read_rows(RTE, f"jsonl:{tmp_path}", "validation")
    assert found.texts == (["a b", "été"], ["c", "c"])
    np.testing.assert_array_equal(found.labels, np.array([1, 0], np.int32), strict=True)


def test_scores(tmp_path):
    source = write_lines(tmp_path, [PAIR | {"label": 2.5}, PAIR | {"label": 5}])
    labels = read_rows(STSB, source, "train").labels
    np.testing.assert_array_equal(labels, np.array([2.5, 5], np.float32), strict=True)


def without(row, column):
    return {k: v for k, v in row.items() if k != column}


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (RTE, without(PAIR, "sentence2"), "line 2: must have the column sentence2, got 'sentence1"),
        (RTE, without(PAIR, "label"), "line 2: must have the column label"),
        (RTE, PAIR | {"sentence1": None}, "line 2: sentence1 must be a text, got None"),
        (RTE, PAIR | {"sentence2": "a\ud800"}, "sentence2 must hold no half of a character, got"),
        (RTE, PAIR | {"label": 2}, "line 2: label must be an integer from 0 to 1, got 2"),
        (RTE, PAIR | {"label": -1}, "line 2: label must be an integer from 0 to 1, got -1"),
        (RTE, PAIR | {"label": 1.0}, "line 2: label must be an integer"),
        (RTE, PAIR | {"label": True}, "line 2: label must be an integer"),
        (RTE, "{'a': 1}", "line 2: must be JSON"),
        (RTE, "", "line 2: must be JSON"),
        (RTE, "[" * 100_000, "line 2: must be JSON"),
        (STSB, PAIR | {"label": 10**400}, "line 2: label must be a score from 0 to 5"),
        (RTE, "[1]", "line 2: must be a JSON object, got 'list'"),
        (STSB, PAIR | {"label": 5.1}, "line 2: label must be a score from 0 to 5, got 5.1"),
        (STSB, '{"sentence1": "", "sentence2": "", "label": NaN}', "score from 0 to 5, got nan"),
        (SQUAD, without(ASKED, "answers"), "line 2: must have the column answers"),
        (SQUAD, ASKED | {"answers": ["the"]}, "line 2: answers must hold as many text"),
        (SQUAD, ASKED | {"answers": {"text": ["a"], "answer_start": []}}, "must hold as many"),
        (SQUAD, ASKED | {"answers": {"text": [], "answer_start": []}}, "at least one"),
        (SQUAD, ASKED | {"answers": {"text": [" "], "answer_start": [0]}}, "texts with places"),
        (
            SQUAD,
            ASKED | {"answers": {"text": ["g"], "answer_start": [0]}},
            "line 2: the answer must lie in the context, got 'g'",
        ),
    ],
)
def test_unfit_rows_name_their_line(task, row, message, tmp_path):
    good = ASKED if task is SQUAD else PAIR
    source = write_lines(tmp_path, [good, row])
    with pytest.raises(ValueError, match=message) as caught:
        (read_questions if task is SQUAD else read_rows)(task, source, "train")
    assert "\n" not in str(caught.value) and "train.jsonl" in str(caught.value)


def test_unfit_sources(tmp_path):
    source = write_lines(tmp_path, [])
    with pytest.raises(ValueError, match="train.jsonl: must hold rows, got 'an empty file'"):
        read_rows(RTE, source, "train")
    with pytest.raises(ValueError, match="must hold validation.jsonl or validation.jsonl.gz, or r"):
        read_rows(RTE, source, "validation")
    with pytest.raises(ValueError, match="source: jsonl: needs the path of a folder"):
        read_rows(RTE, f"{source}/absent", "train")
    for name in ("jsonl:", "digits"):
        with pytest.raises(ValueError, match=f"must be tfds or jsonl:PATH, got '{name}'"):
            read_rows(RTE, name, "train")
    whole = gzip.compress(json.dumps(PAIR).encode() * 100)
    (tmp_path / "validation.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="validation.jsonl.gz: cannot be read"):
        read_rows(RTE, source, "validation")
    (tmp_path / "train.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(ValueError, match="train.jsonl: cannot be read"):
        read_rows(RTE, source, "train")


@pytest.mark.parametrize(("said", "start"), [(7, 7), (8, 7), (0, 7), (99, 7), (-3, 7)])
def test_answers_are_found_near_their_place(said, start, tmp_path):
    answers = {"text": ["the e", "e"], "answer_start": [said, 11]}
    (found,) = read_questions(SQUAD, write_lines(tmp_path, [ASKED | {"answers": answers}]), "train")
    assert found == Question("a ?", "the d, the e.", ("the e", "e"), start)


class Glue(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two configurations of GLUE under their names in TensorFlow Datasets."""

    name = "glue"
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="mnli"), tfds.core.BuilderConfig(name="stsb")]
    builder_config: Any
    code_path = None

    def _info(self):
        label = tfds.features.ClassLabel(num_classes=3)
        features = {"premise": tfds.features.Text(), "hypothesis": tfds.features.Text()}
        if self.builder_config.name == "stsb":
            label = np.float32
            features = {"sentence1": tfds.features.Text(), "sentence2": tfds.features.Text()}
        features |= {"label": label, "idx": np.int32}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any):
        ends = ["_matched", "_mismatched"] if self.builder_config.name == "mnli" else [""]
        return {
            s: self._generate_examples(s) for s in ("train", *[f"validation{end}" for end in ends])
        }

    def _generate_examples(self, split):
        texts = ("premise", "hypothesis", 2)
        if self.builder_config.name == "stsb":
            texts = ("sentence1", "sentence2", 2.5)
        first, second, label = texts
        for i in range(3):
            yield i, {first: f"été {split} {i}", second: "b", "label": label, "idx": i}


class Squad(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """SQuAD under its name in TensorFlow Datasets."""

    name = "squad"
    VERSION = tfds.core.Version("3.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="v1.1")]
    code_path = None

    def _info(self):
        answers = {"text": tfds.features.Text(), "answer_start": np.int32}
        features = {n: tfds.features.Text() for n in ("id", "context", "question")}
        features |= {"answers": tfds.features.Sequence(answers)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any):
        return {split: self._generate_examples() for split in ("train", "validation")}

    def _generate_examples(self):
        yield 0, ASKED


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of prepared sets, written by TensorFlow Datasets itself."""
    folder = tmp_path_factory.mktemp("tfds")
    for config in ("mnli", "stsb"):
        Glue(config=config, data_dir=folder, file_format="array_record").download_and_prepare()
    Squad(config="v1.1", data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_prepared_sets(prepared):
    found = read_rows(TASKS["mnli"], "tfds", "validation", data_dir=prepared)
    assert sorted(found.texts[0]) == [f"été validation_matched {i}" for i in range(3)]
    np.testing.assert_array_equal(found.labels, np.array([2, 2, 2], np.int32), strict=True)
    labels = read_rows(STSB, "tfds", "train", data_dir=prepared).labels
    np.testing.assert_array_equal(labels, np.full(3, 2.5, np.float32), strict=True)
    (question,) = read_questions(SQUAD, "tfds", "validation", data_dir=prepared)
    assert question == Question("a ?", "the d, the e.", ("the e",), 7)


def test_sets_that_are_not_prepared(prepared):
    with pytest.raises(ValueError, match="data_dir: 'glue/rte' is not prepared in .*glue/rte"):
        read_rows(RTE, "tfds", "train", data_dir=prepared)


def test_damaged_sets(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "glue" / "stsb" / "2.0.0"
    info = folder / "dataset_info.json"
    info.write_text(re.sub(r'"shardLengths": \[\s*"3"', '"shardLengths": ["4"', info.read_text()))
    with pytest.raises(
        ValueError, match="must hold the 4 rows that dataset_info.json lists, got 3"
    ):
        read_rows(STSB, "tfds", "train", data_dir=tmp_path)
    for shard in folder.glob("*validation*"):
        shard.unlink()
    with pytest.raises(ValueError, match="data_dir: cannot read .*stsb") as caught:
        read_rows(STSB, "tfds", "validation", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_loading_and_scoring(tmp_path):
    """Outputs that favour the label score 1, others what the metric says."""
    tokenizer = make_tokenizer(tmp_path)
    rows = [PAIR | {"label": i % 2, "sentence1": "a b " * (i + 1)} for i in range(4)]
    rows[3]["sentence2"] = ""
    for split in ("train", "validation"):
        source = write_lines(tmp_path / "rte", rows, split)
    data = load_text("RTE", source, tokenizer, max_length=8)
    assert data.task is RTE and data.train.tokens.shape == (4, 8)
    assert (data.train.num_truncated, data.train.num_empty) == (2, 1)
    np.testing.assert_array_equal(data.validation.labels, [0, 1, 0, 1])
    logits = np.eye(2)[[0, 1, 0, 0]] - 0.5
    assert score(data.task, data.validation, logits) == {"accuracy": 0.75}
    with pytest.raises(ValueError, match="outputs: must be one for each of 4 examples, got 3"):
        score(data.task, data.validation, logits[:3])


@needs_real_tasks
def test_real_files_have_the_rows_that_their_list_says():
    listed = json.loads((TEXT / "tasks.json").read_text())
    for name in ("wnli", "rte", "mrpc", "stsb", "cola", "squad"):
        task = TASKS[name]
        assert set(task.columns) == set(listed[name]["inputs"])
        assert list(task.label_names) == (listed[name]["label_names"] or [])
        source = f"jsonl:{TEXT}", "validation"
        rows = read_questions(task, *source) if task is SQUAD else read_rows(task, *source).labels
        assert len(rows) == listed[name]["splits"]["validation"]["rows"]


@needs_real_tasks
@needs_real_encoder
def test_real_answers_survive_their_windows():
    """Logits that point at the labels give the answers back, but for whole words around them."""
    tokenizer = load_tokenizer(find_checkpoint("minilm"))
    questions = read_questions(SQUAD, f"jsonl:{TEXT}", "validation")[:300]
    windows = make_windows(tokenizer, questions)
    logits = np.zeros((*windows.tokens.shape, 2), np.float32)
    rows = np.flatnonzero(windows.spans[:, 0])
    assert len(rows) >= 300  # every answer lies in some window
    for side in (0, 1):
        logits[rows, windows.spans[rows, side], side] = 1
    found = find_answers(windows, questions, logits)
    answers = [question.answers for question in questions]
    assert metrics.squad_f1(answers, found) > 0.99 and metrics.exact_match(answers, found) > 0.98
