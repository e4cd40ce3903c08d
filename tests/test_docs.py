"""The pages: their links, examples and commands, and the files that other tools read."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from helpers import ROOT, copy_of_checkout, quiet_environment
from made_runs import write_samples
from pyarrow import parquet

from atkd import __main__
from atkd.runtime.files import read_json, write_jsonl

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "config/README.md", ROOT / "results/README.md"]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}


def blocks(text: str, info: str) -> list[str]:
    """Contents of the fenced blocks with this info string."""
    return re.findall(rf"^```{info}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What a link into a page may name, as GitHub makes it of the headings."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(page: Path) -> list[str]:
    """Links of a page that stay in the project."""
    return re.findall(r"\]\((?!http)([^)]+)\)", TEXTS[page])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    found = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert {*PAGES} - {README} <= found


def test_the_readme_takes_two_screens_and_shows_the_folders() -> None:
    text = TEXTS[README]
    assert len(text.splitlines()) <= 110
    shown = set(re.findall(r"^  (\w+)/ ", text, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "atkd").glob("*/__init__.py")}
    assert shown == packages
    files = {path.name for path in (ROOT / "atkd").glob("*.py") if "__" not in path.name}
    assert set(re.findall(r"^  (\w+\.py) ", text, re.MULTILINE)) == files


def test_no_sentence_stands_twice() -> None:
    seen: dict[str, str] = {}
    for path, text in TEXTS.items():
        prose = re.sub(r"^```.*?^```$|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
        prose = " ".join(prose.partition("\n## Keys\n")[0].split())
        for sentence in re.split(r"(?<=[.:]) ", prose):
            if len(sentence.split()) > 6:
                assert sentence not in seen, f"{path} and {seen[sentence]}: {sentence}"
                seen[sentence] = str(path)


# Examples

STAND_INS = """
import torch
from types import SimpleNamespace

class Model(torch.nn.Sequential):
    def forward(self, ids):
        return SimpleNamespace(logits=super().forward(ids))

student, teacher = (Model(torch.nn.Embedding(9, d), torch.nn.Linear(d, 9)) for d in (4, 8))
optimizer = torch.optim.AdamW(student.parameters())
ids = torch.randint(9, (2, 6))
loader = [{"input_ids": ids, "labels": ids.masked_fill(torch.arange(6) < 2, -100)}] * 2
before = student[1].weight.detach().clone()
"""
AFTERWARDS = "assert loss.item() > 0 and not torch.equal(before, student[1].weight)"


def test_readme_example_of_the_loss() -> None:
    (example,) = blocks(TEXTS[README], "python")
    done = run([sys.executable, "-c", STAND_INS + example + AFTERWARDS], ROOT)
    assert done.returncode == 0, done.stdout


def keywords(text: str, name: str) -> set[str]:
    """Keywords of the call of a name."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    (call,) = [node for node in found if isinstance(node.func, ast.Name) and node.func.id == name]
    return {keyword.arg or "" for keyword in call.keywords}


@pytest.mark.parametrize(
    ("name", "example"), [("KDTrainer", "transformers_trainer"), ("TRLKDTrainer", "trl_gkd")]
)
def test_trainers_are_called_as_in_the_examples_that_run(name: str, example: str) -> None:
    (shown,) = [b for b in blocks(TEXTS[ROOT / "docs/losses.md"], "python") if f" {name}(" in b]
    ran = (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")
    assert keywords(shown, name) <= keywords(ran, name)
    imports = [node for node in ast.parse(shown).body if isinstance(node, ast.ImportFrom)]
    assert len(imports) >= 2
    for node in imports:
        for alias in node.names:
            assert re.search(rf"from {node.module} import .*\b{alias.name}\b", ran), alias.name


KINDS = ("divergence", "method", "task", "family", "metric", "table", "figure")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_names_the_file_it_is_added_to(kind: str) -> None:
    text = TEXTS[CONTRIBUTING]
    (block,) = blocks(text, f"python {kind}")
    before = " ".join(text[: text.index(block)].split())
    found = re.search(r"At the end of `([\w/]+\.py)`: ```python \w+$", before)
    assert found, f"{kind}: expected `At the end of FILE:` before the block"
    ast.parse(block)
    path = ROOT / found[1]
    done = run([sys.executable, "-m", "ruff", "format", "--diff", "-"], ROOT, block)
    assert done.returncode == 0, done.stdout
    assert path.is_file(), path


# Commands

LINES = list(
    dict.fromkeys(
        line
        for text in TEXTS.values()
        for block in blocks(text, "sh")
        for line in block.splitlines()
    )
)


def run(line: list[str], folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """A finished command, both its streams in `stdout`."""
    return subprocess.run(
        line,
        cwd=folder,
        env=quiet_environment(),
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two copies of the project: `fresh`, and `finished`, which has results.

    They are those of the frozen run, also where it would just have finished, with some answers.
    """
    place = tmp_path_factory.mktemp("docs")
    fresh, finished = (copy_of_checkout(place / name) for name in ("fresh", "finished"))
    for name in ("Makefile", "requirements.lock", "requirements-figures.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, fresh / name)
    own_data(fresh)
    for name in ("reference/world", "world"):
        shutil.copytree(ROOT / "results/reference/world", finished / "results" / name)
    for key in ("opt/-/6.7b/teacher/1", "opt/125m/-/sft/1"):
        write_samples(finished / "results/world", key, ["one", "two"])
    return place


def own_data(folder: Path) -> None:
    """The configuration of one's own data that config/README.md shows, and such data."""
    (recipe,) = blocks(TEXTS[ROOT / "config/README.md"], "yaml own")
    assert len(recipe.splitlines()) <= 10
    (folder / "mine.yaml").write_text(recipe, encoding="utf-8")
    (pair,) = blocks(TEXTS[ROOT / "config/README.md"], "yaml pair")
    (folder / "qwen.yaml").write_text(pair, encoding="utf-8")
    rows = [{"question": f"Say {n}.", "answer": str(n)} for n in range(9)]
    write_jsonl(folder / "data/support.jsonl", rows)
    parquet.write_table(pa.Table.from_pylist(rows[:2]), folder / "data/held_out.parquet")
    for name in "ab":
        write_jsonl(folder / f"data/manuals/{name}.jsonl.gz", [{"text": f"Of {name}."}])


@pytest.mark.case(
    "data", "files of one's own, as config/README.md shows", "training rows, texts and a task"
)
def test_own_data_are_read_as_shown(place: Path) -> None:
    arguments = ["--configfile", "config/world.yaml", "mine.yaml", "--cores", "1"]
    line = [sys.executable, "-m", "snakemake", *arguments, "results/mine/data/manifest.json"]
    done = run(line, place / "fresh")
    assert done.returncode == 0, done.stdout
    found = read_json(place / "fresh/results/mine/data/manifest.json")
    rows = {name: facts["rows"] for name, facts in found["files"].items()}
    assert rows == {"train.jsonl": 7, "pretrain.jsonl": 2, "tasks/dolly.jsonl": 2}
    assert found["notes"] == ["evaluation items found in training and removed: 2"]


def listed_by_make(line: str, place: Path) -> None:
    """`make TARGET`: make knows what it would run."""
    done = run(["make", "-n", *shlex.split(line)[1:]], place / "fresh")
    assert done.returncode == 0, done.stdout


@functools.cache
def listed_by_snakemake(arguments: str, place: Path) -> None:
    """`snakemake ...`: a listing of its jobs."""
    line = [sys.executable, "-m", "snakemake", *shlex.split(arguments), "-n", "--quiet", "rules"]
    done = run(line, place / "fresh")
    assert done.returncode == 0, done.stdout


def spelled_out(line: str, place: Path) -> None:
    """`python -m atkd STAGE --config FILE --run KEY`: the job's whole command line."""
    stage, *arguments = line.split()[3:]
    arguments[1] = str(place / "fresh" / arguments[1])
    assert stage in __main__.STAGES and __main__.job_of(stage, arguments)[0]


def executed(line: str, place: Path) -> None:
    """`python -m atkd ...`: run."""
    done = run([sys.executable, *line.split()[1:]], place / "finished")
    assert done.returncode == 0, done.stdout


def exported(line: str, place: Path) -> None:
    """`python -m atkd export ...`: tests/test_hub.py runs it on what it has trained."""
    text = (ROOT / "tests/test_hub.py").read_text(encoding="utf-8")
    assert f"{line.partition('export ')[2].rpartition(' ')[0]}" in text


def collected(line: str, place: Path) -> None:
    """`python -m pytest ...`: there are such tests."""
    done = run([sys.executable, *line.split()[1:], "--collect-only", "-q"], ROOT)
    assert done.returncode == 0, done.stdout


def run_elsewhere(line: str, place: Path) -> None:
    """`python examples/NAME.py`: tests/test_examples.py runs it."""
    text = (ROOT / "tests/test_examples.py").read_text(encoding="utf-8")
    assert (ROOT / line.split()[1]).is_file() and f'"{Path(line).stem}"' in text


def installable(line: str, place: Path) -> None:
    """`pip install NAME`: an extra of this project, or what a hook file is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {f'".[{name}]"' for name in project["optional-dependencies"]}
    assert line.split()[2] in {".", "pre-commit", *extras}


def hooked(line: str, place: Path) -> None:
    """`pre-commit install`: there are hooks (their own test reads them)."""
    assert (ROOT / ".pre-commit-config.yaml").is_file()


def activated(line: str, place: Path) -> None:
    """`source .venv/bin/activate`: the environment that make creates."""
    assert ".venv/.ready" in (ROOT / "Makefile").read_text(encoding="utf-8")


TREATED: dict[str, Callable[[str, Path], None]] = {
    r"make [a-z-]+( CONFIG=(\S+|\"[^\"]+\"))?": listed_by_make,
    r"(ATKD_WARM= )?snakemake .*": lambda line, place: listed_by_snakemake(
        line.partition("snakemake ")[2], place
    ),
    r"python -m atkd [a-z-]+ --config \S+ --run \S+": spelled_out,
    r"python -m atkd export .*": exported,
    r"python -m atkd .*": executed,
    r"python -m pytest .*": collected,
    r"python examples/\w+\.py": run_elsewhere,
    r"pip install \S+": installable,
    r"pre-commit install": hooked,
    r"source \.venv/bin/activate": activated,
}


@pytest.mark.parametrize("line", LINES)
def test_commands_work(line: str, place: Path) -> None:
    treat = next((t for pattern, t in TREATED.items() if re.fullmatch(pattern, line)), None)
    assert treat, f"no test knows how to treat {line!r}"
    treat(line, place)


def test_commands_are_marked_as_such() -> None:
    for path, text in TEXTS.items():
        for info, block in re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", text, re.MULTILINE):
            found = re.search(r"^(python|make|snakemake|pip|source) ", block, re.MULTILINE)
            assert info == "sh" or not found, f"{path}: {block}"


def test_commands_within_sentences_exist() -> None:
    text = "\n".join(TEXTS.values())
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    assert set(re.findall(r"python -m atkd ([a-z][a-z-]*)", text)) <= {*__main__.STAGES}
    assert not re.search(r"python -m atkd\.", text)


# Files that other tools read


def checked(schema: str, *arguments: str) -> None:
    """Passes a schema that comes with check-jsonschema."""
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *arguments]
    done = run(line, ROOT)
    assert done.returncode == 0, done.stdout


def test_github_runs_what_make_offers() -> None:
    path = ROOT / ".github/workflows/ci.yml"
    checked("vendor.github-workflows", str(path))
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert found["concurrency"]["cancel-in-progress"] is True
    targets = found["jobs"]["make"]["strategy"]["matrix"]["target"]
    assert {"lint", "test", "learn", "smoke"} == {*targets}


def test_citation_passes_its_schema() -> None:
    checked("vendor.citation-file-format", "--force-filetype", "yaml", "CITATION.cff")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["references"][0]["title"].startswith("Revisiting Knowledge Distillation")
    assert len(found["references"][0]["authors"]) == 6


def test_hooks_are_the_locked_tools() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load(text)["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert {"id", "name", "entry", "language"} <= {*hook} and hook["language"] == "system"
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert re.search(rf"^{tool}==", locked, re.MULTILINE), tool


def test_the_workflow_catalog_reads_what_it_documents() -> None:
    text = (ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8")
    usage = yaml.safe_load(text)["usage"]
    assert {*usage} == {"mandatory-flags", "software-stack-deployment", "report"}
    assert {*usage["mandatory-flags"]} == {"desc", "flags"}
    assert usage["software-stack-deployment"] == {"conda": True} and usage["report"] is True
