"""Data sources: one canonical form, one clear message for every bad input."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from atkd import config
from atkd.data import prepare, sources
from atkd.runtime.files import InputError, read_json, read_jsonl
from atkd.tasks import AVERAGES, TASKS, File, Task

GENERATION = {"instruction": "Name a town.", "output": "Oslo."}
TRAIN = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(20)]
MMLU = {"subject": "jobs", "question": "Who bakes?", "choices": ["a", "b", "c", "d"], "answer": 2}
DROP = {"passage": "Ann has 2 dogs.", "question": "How many?", "answers": ["2"]}
BBH = {"task": "sort", "input": "b a", "target": "a b"}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    base = tmp_path / "root" / "data"
    write(base / "alpaca_davinci003/train.jsonl.gz", TRAIN)
    write(base / "text_novels/train.jsonl.gz", [{"text": f"Page {n}."} for n in range(30)])
    for name in ("dolly", "self-inst", "vicuna", "koala", "wizardlm"):
        write(
            base / name / "valid.jsonl", [GENERATION | {"instruction": f"{name} {n}"} for n in "ab"]
        )
    write(base / "mmlu/dev.jsonl.gz", [MMLU])
    write(base / "mmlu/test.jsonl.gz", [MMLU | {"question": "Who sings?"}] * 3)
    write(base / "drop/dev.jsonl.gz", [DROP])
    write(base / "bbh/test.jsonl.gz", [BBH])
    return tmp_path / "root"


def prepared(root: Path, folder: Path, /, **settings: Any) -> dict[str, Any]:
    given = {"root": str(root / "data"), "pretrain": "text_novels"} | settings
    return prepare.prepare("local", given, 1, folder)


def test_local_layout(root: Path, tmp_path: Path) -> None:
    manifest = prepared(root, tmp_path / "out")
    assert manifest == read_json(tmp_path / "out/manifest.json")
    rows = {name: facts["rows"] for name, facts in manifest["files"].items()}
    assert rows["train.jsonl"] == 20 and rows["tasks/mmlu.jsonl"] == 4
    for name, facts in manifest["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["bytes"] == len(content)
    assert any("not Alpaca-GPT4" in note for note in manifest["notes"])
    first = next(read_jsonl(tmp_path / "out/tasks/selfinst.jsonl"))
    assert first == {
        "id": "selfinst-0",
        "instruction": "self-inst a",
        "input": "",
        "output": "Oslo.",
    }
    mmlu = list(read_jsonl(tmp_path / "out/tasks/mmlu.jsonl"))
    assert [row["split"] for row in mmlu] == ["dev", "test", "test", "test"]


def test_limits_are_seeded_draws(root: Path, tmp_path: Path) -> None:
    limits = {"train": 5, "pretrain": 40, "dolly": 1, "mmlu": 2}
    manifests = [prepared(root, tmp_path / name, limits=limits) for name in "ab"]
    assert manifests[0]["files"] == manifests[1]["files"]
    rows = {name: facts["rows"] for name, facts in manifests[0]["files"].items()}
    assert rows["train.jsonl"] == 5 and rows["tasks/dolly.jsonl"] == 1
    assert rows["tasks/mmlu.jsonl"] == 3  # the dev row is a shot and stays
    assert 40 <= sum(len(r["text"]) for r in read_jsonl(tmp_path / "a/pretrain.jsonl")) < 50
    numbers = [int(r["output"]) for r in read_jsonl(tmp_path / "a/train.jsonl")]
    assert numbers == sorted(numbers) and numbers != [0, 1, 2, 3, 4]
    assert "train: 5 of 20 rows, drawn with seed 1" in manifests[0]["notes"]


def test_evaluation_items_leave_training(root: Path, tmp_path: Path) -> None:
    held = [{"instruction": "koala b", "input": "", "output": "x"}]
    held.append({"instruction": "b a", "input": "", "output": "x"})
    held.append({"instruction": "How many?", "input": DROP["passage"], "output": "x"})
    write(root / "data/alpaca_davinci003/train.jsonl.gz", TRAIN + held)
    manifest = prepared(root, tmp_path / "out")
    assert manifest["files"]["train.jsonl"]["rows"] == 20
    assert "evaluation items found in training and removed: 3" in manifest["notes"]
    with pytest.raises(InputError, match=r"'train-20' is an item of koala \(3 such rows\)"):
        prepared(root, tmp_path / "out", overlap="refuse")


SPLITS = {
    "instruction and input": ("Name a town", "in Norway."),
    "all in the instruction": ("Name a town in Norway.", ""),
    "all in the input": ("", "Name a town in Norway."),
    "split elsewhere": ("Name a", "town in Norway."),
    "other white space": ("Name a town\n", " in\tNorway. "),
}
SAME = pytest.mark.case(
    "data",
    "a test item `Name a town` + `in Norway.`; a training row that reads the same, split otherwise "
    "into instruction and input",
    "the row is removed from training and counted, or refused by `overlap: refuse`",
)


@SAME
@pytest.mark.parametrize("item", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("row", SPLITS.values(), ids=SPLITS)
def test_items_are_compared_as_they_are_read(item: tuple[str, str], row: tuple[str, str]) -> None:
    def made() -> prepare.Data:
        train, held = ({"id": "a", "instruction": a, "input": b} for a, b in (row, item))
        other = {"id": "b", "instruction": "Name a", "input": "town in Norway"}
        return prepare.Data([train, other], [], {"dolly": [held]})

    data = made()
    assert prepare.separate(data) == 1 and [row["id"] for row in data.train] == ["b"]
    assert data.notes == ["evaluation items found in training and removed: 1"]
    with pytest.raises(InputError, match=r"train row 'a' is an item of dolly \(1 such rows\)"):
        prepare.separate(made(), "refuse")


@pytest.mark.case(
    "data",
    "items of MMLU, DROP and BBH as one instruction, DROP's passage before its question",
    "removed from training and counted; the question of MMLU without its choices may be taught",
)
def test_items_with_shots_are_compared_as_they_are_read() -> None:
    asked = ["Who bakes? a b c d", "Ann has 2 dogs. How many?", "How many? Ann has 2 dogs.", "b a"]
    asked += ["Who bakes?", "Ann has 2 dogs."]
    train = [{"id": text, "instruction": text, "input": ""} for text in asked]
    data = prepare.Data(train, [], {"mmlu": [MMLU], "drop": [DROP], "bbh": [BBH]})
    assert prepare.separate(data) == 4 and [row["id"] for row in data.train] == asked[4:]


def test_a_new_task_with_files_is_a_row(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (File("poems/dev.jsonl", "dev"), File("poems/test.jsonl", "test"))
    row = Task("Poems", "rouge_l", "", fields=("ask", "output"), asks=("ask",), files=files)
    monkeypatch.setitem(TASKS, "poems", row)
    monkeypatch.setattr(config, "schema", config.schema.__wrapped__)  # which reads rows once
    for split in ("dev", "test"):
        rows = [{"ask": f"Say {n}.", "output": split} for n in range(2)]
        write(root / f"data/poems/{split}.jsonl", rows)
    manifest = prepared(root, tmp_path / "out")
    assert manifest["files"]["tasks/poems.jsonl"]["rows"] == 4
    assert "evaluation items found in training and removed: 2" in manifest["notes"]
    with pytest.raises(InputError, match="tasks: unknown task 'peoms'; expected one of dolly"):
        prepare.canonical("peoms", [("here", {})])


def test_blank_pages_are_left_out(root: Path, tmp_path: Path) -> None:
    write(root / "data/text_novels/train.jsonl.gz", [{"text": "One."}, {"text": " \n"}])
    assert (
        "pretrain: 1 rows with a blank text left out" in prepared(root, tmp_path / "out")["notes"]
    )


def _append(name: str, line: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "data" / name
        path.write_bytes(path.read_bytes() + line.encode() + b"\n")

    return change


BROKEN = {
    "malformed": (
        _append("dolly/valid.jsonl", '{"instruction": '),
        r"dolly/valid.jsonl:3: not valid",
    ),
    "empty response": (
        _append("koala/valid.jsonl", json.dumps(GENERATION | {"output": " "})),
        r"koala/valid.jsonl:3: response is empty",
    ),
    "missing field": (
        _append("vicuna/valid.jsonl", '{"instruction": "x"}'),
        r"vicuna/valid.jsonl:3: field 'output' is missing; expected instruction, input, output",
    ),
    "wrong type": (
        _append("vicuna/valid.jsonl", '{"instruction": "x", "output": 3}'),
        r"vicuna/valid.jsonl:3: field 'output' is 3, expected str",
    ),
    "repeated id": (
        _append("dolly/valid.jsonl", json.dumps(GENERATION | {"id": "dolly-0"})),
        r"dolly/valid.jsonl:3: id 'dolly-0' repeats that of .*valid.jsonl:1",
    ),
    "missing file": (
        lambda root: (root / "data/drop/dev.jsonl.gz").unlink(),
        "drop/dev.* not found",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_files(case: str, root: Path, tmp_path: Path) -> None:
    change, message = BROKEN[case]
    change(root)
    with pytest.raises(InputError, match=message):
        prepared(root, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "/nowhere"}, "data.settings.root: found /nowhere, expected a folder"),
        ({"train": "alpaca"}, "data/alpaca not found; .*, or one of alpaca_davinci003"),
        ({"tasks": ["dolly", "gsm8k"]}, "found \"gsm8k\"; expected one of .'dolly'"),
        ({"limits": {"dolly": 0}}, "limits.dolly: found 0; expected a number of at least 1"),
        ({"limits": {"doly": 1}}, "no file 'doly' to limit"),
        ({"limits": {"bbh": 1}}, "its shots are its first rows; set evaluation.limit.bbh"),
    ],
)
def test_bad_settings(settings: dict, message: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prepared(root, tmp_path / "out", **settings)


@pytest.mark.case(
    "config",
    "`atkd data --settings '{\"people\": [1]}'`",
    "config key data.settings.people: found [1]; expected integer",
)
def test_settings_of_the_command_line_are_checked(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["data", "--source", "world", "--settings", '{"people": [1]}']
    line += ["--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(InputError) as caught:
        prepare.main()
    assert says in str(caught.value) and not (tmp_path / "out").exists()


def test_no_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATKD_DATA", raising=False)
    with pytest.raises(InputError, match=r"data\.settings\.root: found nothing, expected a folder"):
        prepare.prepare("local", {}, 1, tmp_path)


def test_hub_layout_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    hub = tmp_path / "hub"
    write(hub / "sort/test.jsonl", [{"input": "b a", "target": "a b"}])
    header = "---\nconfigs:\n- config_name: sort\n  data_files:\n"
    header += "  - {split: test, path: sort/test.jsonl}\n---\n"
    (hub / "README.md").write_text(header)
    write(hub / "drop/test.jsonl", [{"passage": "P.", "q": "Q?", "spans": {"text": ["2", "2"]}}])
    notes: list[str] = []
    entries = [{"id": str(hub), "configs": ["sort"], "splits": ["test"]}]
    rows = prepare.canonical("bbh", sources.read_entries(entries, tmp_path, notes))
    assert rows == [{"id": "bbh-0", "task": "sort", "input": "b a", "target": "a b"}]
    assert notes == [f"unpinned: {hub} at revision main"]
    columns = {"question": "q", "answers": "spans.text"}
    entries = [{"file": str(hub / "drop/test.jsonl"), "columns": columns}]
    rows = prepare.canonical("drop", sources.read_entries(entries, tmp_path, notes))
    assert rows[0]["question"] == "Q?" and rows[0]["answers"] == ["2", "2"]


def test_pretrained_models_need_no_text(root: Path, tmp_path: Path) -> None:
    entries = {"train": {"file": str(root / "data/alpaca_davinci003/train.jsonl.gz")}}
    entries["tasks"] = {"drop": [{"file": str(root / "data/drop/dev.jsonl.gz")}]}
    manifest = prepare.prepare("hub", entries, 1, tmp_path / "out")
    assert manifest["files"]["pretrain.jsonl"]["rows"] == 0
    with pytest.raises(InputError, match=r"data.settings: 'tasks' is a required property"):
        prepare.prepare("hub", {"train": entries["train"]}, 1, tmp_path / "out")


def test_rules_name_the_data_folder_itself(root: Path, tmp_path: Path) -> None:
    manifest = prepare.prepare("local", {"root": str(root / "data")}, 1, tmp_path / "out")
    assert manifest["files"]["train.jsonl"]["rows"] == 20


class Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves files, from an offset where asked; keeps what was asked."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        body = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Ranged, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        Ranged.asked = []
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_download_resumes_and_verifies(server: str, tmp_path: Path) -> None:
    body = json.dumps(TRAIN).encode()
    (tmp_path / "train.json").write_bytes(body)
    entry = {"url": f"{server}/train.json", "sha256": hashlib.sha256(body).hexdigest()}
    folder = tmp_path / "got"
    path = folder / f"{entry['sha256'][:12]}-train.json"
    folder.mkdir()
    path.with_name(f"{path.name}.part").write_bytes(body[:100])
    assert sources.download(entry, folder) == path
    assert path.read_bytes() == body and os.listdir(folder) == [path.name]
    sources.download(entry, folder)
    assert Ranged.asked == ["bytes=100-"]  # resumed once, then found
    assert len(prepare.canonical("train", sources.read_entries([entry], folder, []))) == 20
    wrong = entry | {"sha256": "0" * 64}
    with pytest.raises(InputError, match=f"sha256 is {entry['sha256']}, expected 0000"):
        sources.download(wrong, folder)
    settings = {"train": {"url": entry["url"]}, "tasks": {"dolly": "dolly.jsonl"}}
    with pytest.raises(InputError, match=r"train\.0\.sha256: missing; expected the 64 hex digits"):
        config.checked_data("url", settings)
    with pytest.raises(InputError, match="cannot be fetched"):
        sources.download(entry | {"url": "http://127.0.0.1:1/x.json"}, tmp_path / "other")


@pytest.mark.case("data", "an address `...train.json?download=true`", "the JSON list train.json")
def test_an_address_is_known_by_its_path(server: str, tmp_path: Path) -> None:
    body = json.dumps(TRAIN).encode()
    (tmp_path / "my train.json").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    entry = {"url": f"{server}/my%20train.json?download=true#top", "sha256": digest}
    rows = list(sources.read_entries([entry], tmp_path / "got", []))
    assert len(rows) == 20 and os.listdir(tmp_path / "got") == [f"{digest[:12]}-my train.json"]
    (tmp_path / "content").write_bytes(body)
    entry = {"url": f"{server}/content", "sha256": digest, "format": "json"}
    assert len(list(sources.read_entries([entry], tmp_path / "got", []))) == 20


BLANK = [
    pytest.param("", marks=pytest.mark.case(
        "data", "a blank `output`", "response is empty, expected text "
        "(data.settings.blank_output: drop leaves such rows out)")),
    pytest.param(None, marks=pytest.mark.case(
        "data", "`\"output\": null`", "field 'output' is missing; expected instruction, input")),
]  # fmt: skip


@pytest.mark.parametrize("output", BLANK)
@pytest.mark.parametrize("source", ["local", "hub"])
def test_blank_outputs_follow_a_setting(
    source: str, output: str | None, says: str, root: Path, tmp_path: Path
) -> None:
    path = root / "data/mine.jsonl"
    write(path, [{"instruction": "Say it.", "output": output}, *TRAIN, TRAIN[0] | {"output": " "}])
    write(root / "data/test.jsonl", [GENERATION, GENERATION | {"output": "\n"}])
    settings: dict[str, Any] = {"train": str(path)}
    settings["tasks"] = {"dolly": str(root / "data/test.jsonl")}
    if source == "local":
        settings["root"] = str(root)
    with pytest.raises(InputError) as caught:
        prepare.prepare(source, settings, 1, tmp_path / "out")
    assert f"{path}:1: {says}" in str(caught.value)
    manifest = prepare.prepare(source, settings | {"blank_output": "drop"}, 1, tmp_path / "out")
    assert "train: 2 rows with a blank output left out" in manifest["notes"]
    assert "dolly: 1 rows with a blank output left out" in manifest["notes"]
    assert manifest["files"]["train.jsonl"]["rows"] == 20


def test_entries_of_a_list_must_be_text(root: Path, tmp_path: Path) -> None:
    write(root / "data/mmlu/dev.jsonl.gz", [MMLU | {"choices": ["a", "b", "c", 4]}])
    with pytest.raises(
        InputError, match=r"dev.*:1: field 'choices' has the entry 4, expected text"
    ):
        prepared(root, tmp_path / "out")


@pytest.mark.case(
    "data", "a task's folder with dev.jsonl.gz and test.jsonl.gz", "splits named dev and test"
)
def test_ones_own_files_serve_training_pretraining_and_every_task(
    root: Path, tmp_path: Path
) -> None:
    write(root / "data/chats/b.jsonl", [{"ask": "B?", "say": "b", "more": None}])
    write(root / "data/chats/a.jsonl", [{"ask": "A?", "say": "a", "more": "c"}])
    columns = {"instruction": "ask", "input": "more", "output": "say"}
    manifest = prepared(
        root,
        tmp_path / "out",
        train=[{"file": "chats", "columns": columns}, "alpaca_davinci003"],
        pretrain=[{"file": str(root / "data/chats"), "columns": {"text": "ask"}}, "text_novels"],
        tasks={"mmlu": "mmlu", "koala": {"file": "dolly/valid.jsonl"}, "drop": "drop"},
        limits={"mmlu": 2, "koala": 1},
    )
    rows = {name: facts["rows"] for name, facts in manifest["files"].items()}
    assert rows == {
        "train.jsonl": 22,
        "pretrain.jsonl": 32,
        "tasks/mmlu.jsonl": 3,
        "tasks/koala.jsonl": 1,
        "tasks/drop.jsonl": 1,
    }
    first = next(read_jsonl(tmp_path / "out/train.jsonl"))
    assert first == {"id": "train-0", "instruction": "A?", "input": "c", "output": "a"}
    splits = [row["split"] for row in read_jsonl(tmp_path / "out/tasks/mmlu.jsonl")]
    assert splits == ["dev", "test", "test"]
    assert len(manifest["notes"]) == 5  # what two sets are, two limits, no overlap


def test_world_is_canonical(tmp_path: Path) -> None:
    manifest = prepare.prepare("world", {"pretrain": 3000}, 1, tmp_path / "out")
    assert "evaluation items found in training and removed: 0" in manifest["notes"]
    assert {f"tasks/{name}.jsonl" for name in AVERAGES["average"]} <= set(manifest["files"])


def test_real_counts(tmp_path: Path) -> None:
    if not os.environ.get("ATKD_DATA"):
        pytest.skip("no data root: set ATKD_DATA to a folder with data/ and tokenizers/")
    limits = {"pretrain": 100_000}
    settings = {"limits": limits, "pretrain": "text_novels"}
    manifest = prepare.prepare("local", settings, 1, tmp_path / "out")
    rows = {name: facts["rows"] for name, facts in manifest["files"].items()}
    tasks = {name: rows[f"tasks/{name}.jsonl"] for name in AVERAGES["average"]}
    assert tasks == {
        "dolly": 500,
        "selfinst": 242,
        "vicuna": 80,
        "koala": 180,
        "wizardlm": 218,
        "mmlu": 14_042 + 285,
        "drop": 9_536,
        "bbh": 6_511,
    }
    assert rows["train.jsonl"] == 51_924
