"""What a report is made from: a run's score files and analyses, each read once and when asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from atkd.evaluation.scores import COST_COLUMNS, DOCUMENT_COLUMNS, SCORE_COLUMNS
from atkd.runtime.files import InputError
from atkd.statistics import comparisons, estimates
from atkd.statistics.estimates import Contrast, RunRecord, Scores, read_csv, sort_key

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Run:
    """Where a run's files are.

    `record` is run.json beside the scores where none is given; files that may be absent are None.
    `analyses` is a folder; `name` stands in for the configuration's in titles.
    """

    scores_path: Path
    documents_path: Path
    costs_path: Path | None = None
    published_path: Path | None = None
    record_path: Path | None = None
    analyses: Path | None = None
    name: str | None = None

    @cached_property
    def record(self) -> RunRecord:
        """What the run says of itself."""
        beside = self.scores_path.with_name(estimates.RECORD)
        return estimates.read_record(self.record_path or beside)

    @property
    def title(self) -> str:
        """How tables name the run."""
        return self.name or self.record.config

    @property
    def world(self) -> bool:
        """Whether the tasks are the world's analogues."""
        return self.record.world

    @cached_property
    def scores(self) -> Scores:
        """Every document's values."""
        read = self.score_rows, self.documents, self.record
        return estimates.scores_of(*read, self.documents_path)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell of the grid on every metric and column."""
        import pandas as pd

        wanted = [Contrast((cell,)) for cell in sorted(self.scores.rows, key=sort_key)]
        return pd.DataFrame(estimates.estimates(self.scores, wanted))

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Every gain and control."""
        import pandas as pd

        found = comparisons.differences(self.scores)
        columns = [*self.cells, "detectable", *comparisons.EXTRAS]
        return pd.DataFrame(found, columns=columns)

    @cached_property
    def score_rows(self) -> pd.DataFrame:
        """scores.csv as it is."""
        return read_csv(self.scores_path, SCORE_COLUMNS)

    @cached_property
    def documents(self) -> pd.DataFrame:
        """documents.csv.gz as it is."""
        return read_csv(self.documents_path, ("run", *DOCUMENT_COLUMNS))

    @cached_property
    def costs(self) -> pd.DataFrame | None:
        """costs.csv, if there is one."""
        return None if self.costs_path is None else read_csv(self.costs_path, COST_COLUMNS)

    def analysis(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame | None:
        """An analysis that was asked for by name, if it was."""
        path = self.analyses and self.analyses / f"{name}.csv"
        return read_csv(path, columns) if path and path.is_file() else None


def run_in(folder: Path, published: Path | None = None) -> Run:
    """A run's files where a run writes them."""
    names = ("scores.csv", "documents.csv.gz", "costs.csv")
    scores, documents, costs = (folder / name for name in names)
    return Run(scores, documents, costs, published, analyses=folder / "analyses")


@dataclass
class Numbers:
    """What figures are drawn from: the numbers that the tables stage wrote."""

    record: RunRecord
    folder: Path

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell of the grid."""
        return self._read("estimates")

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Every gain and control."""
        return self._read("differences")

    def table(self, name: str) -> pd.DataFrame | None:
        """The numbers of a table, if it was made."""
        return self._read(name) if (self.folder / f"{name}.csv").is_file() else None

    def _read(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / f"{name}.csv"
        try:
            return pd.read_csv(path, keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: expected a CSV written by the stage tables ({error})"
            ) from None
