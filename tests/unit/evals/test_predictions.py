"""The shapes in which agents leave their predictions."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from verigym.errors import TaskError
from verigym.evals.predictions import read_predictions

PATCH = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+b\n"
ONE = {"model_name_or_path": "m", "instance_id": "a__b-1", "model_patch": PATCH}
TWO = {"model_name_or_path": "m", "instance_id": "a__b-2", "model_patch": ""}
BY_ID = {row["instance_id"]: row for row in (ONE, TWO)}
LINES = f"{json.dumps(ONE)}\n{json.dumps(TWO)}\n"
WITHOUT_ID = {name: {"model_patch": row["model_patch"]} for name, row in BY_ID.items()}
SHAPES = {
    "lines": LINES,
    "an array": json.dumps([ONE, TWO]),
    "preds.json, indented": json.dumps(BY_ID, indent=2),
    "preds.json, in one line": json.dumps(BY_ID),
    "preds.json after blank lines": "\n  \n" + json.dumps(BY_ID, indent=4),
    "preds.json whose values have no id": json.dumps(WITHOUT_ID, indent=2),
    "id -> patch": json.dumps({name: row["model_patch"] for name, row in BY_ID.items()}, indent=1),
    "a line for each id": "".join(json.dumps({name: row}) + "\n" for name, row in BY_ID.items()),
    "indented objects": json.dumps(ONE, indent=2) + "\n" + json.dumps(TWO, indent=2),
    "lines after blank ones": "\n\n" + LINES,
    "Windows lines": LINES.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_predictions(shape, tmp_path):
    path = tmp_path / "preds.json"
    path.write_bytes(SHAPES[shape].encode())
    found = [(prediction.task_id, prediction.text) for prediction in read_predictions(path)]
    assert found == [("a__b-1", PATCH), ("a__b-2", "")]


def test_one_pred_file_a_folder_of_them_and_tables(tmp_path):
    for row in (ONE, TWO):
        file = tmp_path / "run" / row["instance_id"] / f"{row['instance_id']}.pred"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(row, indent=4))
    (prediction,) = read_predictions(tmp_path / "run" / "a__b-1" / "a__b-1.pred")
    assert (prediction.task_id, prediction.text, prediction.fields["model_name_or_path"]) == ("a__b-1", PATCH, "m")
    (tmp_path / "run" / "config.json").write_text("{}")
    assert [prediction.task_id for prediction in read_predictions(tmp_path / "run")] == ["a__b-1", "a__b-2"]
    (tmp_path / "tables").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ONE, TWO]), tmp_path / "tables" / "preds.parquet")
    assert [prediction.text for prediction in read_predictions(tmp_path / "tables")] == [PATCH, ""]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "holds no prediction"),
        ('{"a__b-1": {"patch": ""}}', "this row has a__b-1"),
        ('{"a__b-1": "no patch"}', "this row has a__b-1"),
        ('{"a__b-1": {"model_patch": 1}}', "model_patch is a int"),
        (json.dumps({**BY_ID, "a__b-3": {"patch": ""}}), "this row has a__b-1, a__b-2, a__b-3"),
    ],
)
def test_what_is_no_prediction_is_told(text, told, tmp_path):
    (tmp_path / "preds.json").write_text(text)
    with pytest.raises(TaskError, match=told):
        read_predictions(tmp_path / "preds.json")
