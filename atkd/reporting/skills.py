"""What models of a family can do: the world's skills, subjects and subtasks, each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atkd.evaluation.metrics import JUDGE
from atkd.methods import title_of
from atkd.models.families import family_title, size
from atkd.reporting import registry
from atkd.reporting.inputs import Run
from atkd.reporting.table import ANALOGUES, Table, either, number
from atkd.statistics.estimates import Cell
from atkd.tasks import TASKS, open_ended

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("none", "sft", "supervised_kd", "supervised_kd_atkd", "teacher")


def answers(documents: pd.DataFrame, family: str) -> pd.DataFrame:
    """A row per answer of the family's shown models: its score in percent under `value`.

    `exam` is the understanding task it belongs to, empty for open-ended ones; `group` the skill,
    subject or subtask; `teacher`, `method` and `seed` say which model gave it.
    """
    import pandas as pd

    runs = {run: run.split("/") for run in documents.run.unique()}
    wanted = [run for run, cell in runs.items() if cell[0] == family and cell[3] in SHOWN]
    tasks = documents.task.unique()
    own = {task: JUDGE if open_ended(task) else TASKS[task].metric for task in tasks}
    found = documents[documents.run.isin(wanted)]
    found = found[(found.metric == found.task.map(own)) & (found.group.fillna("") != "")]
    names = pd.DataFrame([runs[run] for run in found.run], found.index, [*Cell._fields, "seed"])
    found = found.join(names[["teacher", "method", "seed"]])
    open_task = found.task.map(open_ended)
    found["exam"] = found.task.map(lambda task: TASKS[task].title).where(~open_task, "")
    return found


def model_kinds(found: pd.DataFrame) -> list[tuple[str, str]]:
    """Method and size of each column: students in order, a method's teachers pooled, teachers."""
    methods = [name for name in SHOWN[:-1] if (found.method == name).any()]
    teachers = found.teacher[found.method == "teacher"].unique()
    return [(name, "") for name in methods] + [
        ("teacher", name) for name in sorted(teachers, key=size)
    ]


@registry.table(
    "skills_{family}",
    category="Scores",
    applies=lambda record: record.world,
    caption=(
        "Each skill of the open-ended tasks, and each subject and subtask of the exams, by itself: "
        "percent (higher is better) of the untrained and the fine-tuned student, of Supervised KD "
        "without and with ATKD, and of the teachers."
    ),
)
def skills(run: Run, family: str) -> Table | None:
    """One family's skills."""
    import pandas as pd

    found = answers(run.documents, family)
    if found.empty:
        return None
    columns = {}
    for method, teacher in model_kinds(found):
        part = found[(found.method == method) & ((found.teacher == teacher) if teacher else True)]
        name = f"{title_of(method)} {teacher.upper()}".strip()
        columns[name] = part.groupby(["exam", "group"]).value.mean()
    asked = found.drop_duplicates(["exam", "group", "task", "document"])
    items = asked.groupby(["exam", "group"]).size()
    data = pd.DataFrame(columns)
    rows = [
        [" ".join(filter(None, key)), str(items[key]), *(number(value, 0) for value in values)]
        for key, *values in data.itertuples()
    ]
    return Table(
        f"{family_title(family)}: skills ({run.title})",
        ["Skill", "Items", *columns],
        rows,
        [
            "Mean percent over the items of all tasks that ask for the skill; higher is better. "
            "Methods that have several teachers: all of them together.",
            f"Seeds: {either([found.seed.nunique()])}. No intervals: a look, not a test.",
            ANALOGUES,
        ],
        data.assign(items=items).reset_index(),
    )
