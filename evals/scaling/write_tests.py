"""An environment in which an agent writes a test that shows an issue; it fails at base, and passes once mended."""

from typing import Any

from ...envs.core import Submission
from ...envs.swe.env import SWEEnv
from ...envs.task import Task
from ...envs.tools.spec import ToolError, tool
from ...rewards.score import Score, verdict
from .select import normal_test
from .trials import Trial

TEST_FILE = "test_verigym_issue.py"


class TestWritingEnv(SWEEnv):
    """The repository at base, as in ``SWEEnv``; what is handed in is the text of one pytest file.

    The score is 1 if the file holds tests and they fail at base. Nothing hidden is looked at, so that the score may
    be used to choose.
    """

    __test__ = False

    test: str | None = None
    """What the last episode handed in; None where it handed in nothing."""

    def prompt(self, task: Task) -> str:
        return (
            f"{task.prompt}\n\nDo not mend this. Write pytest tests that show it, in the file {TEST_FILE} at the root "
            "of the repository: they must fail now, and pass once it is mended. Run them, then call submit."
        )

    async def start(self, task: Task) -> None:
        self.test = None
        await super().start(task)

    async def score(self, task: Task, submission: Any) -> Score:
        try:
            text = (await self._read(TEST_FILE)).decode(errors="replace")
        except ToolError as error:
            return verdict(False, f"no tests were written: {error}")
        await self.stop()
        self.test = text
        if normal_test(text) is None:
            return verdict(False, f"{TEST_FILE} holds no test")
        assert self._backend is not None
        passes = await Trial(self._backend, task, timeout_s=self._test_timeout_s).generated("", text)
        return verdict(not passes, "the tests pass at base" if passes else "the tests fail at base")

    @tool
    async def submit(self) -> Submission:
        """Hand in the tests as they are now."""
        return Submission(value=None)
