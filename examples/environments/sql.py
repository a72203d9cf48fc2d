"""Questions about a real database: sqlite, opened in ``start`` and asked by a tool."""

import sqlite3

from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import ToolError, tool
from verigym.model.chat.messages import Message, ToolCall

SCHEMA = """
CREATE TABLE fruit (name TEXT, colour TEXT, price INTEGER, stock INTEGER);
INSERT INTO fruit VALUES ('apple', 'red', 3, 40), ('cherry', 'red', 9, 12), ('lemon', 'yellow', 2, 30),
    ('banana', 'yellow', 1, 90), ('lime', 'green', 4, 15), ('pear', 'green', 3, 25), ('plum', 'blue', 5, 8);
"""
QUERIES = {
    "What does a {name} cost?": "SELECT price FROM fruit WHERE name = '{name}'",
    "How many pieces of {name} are there?": "SELECT stock FROM fruit WHERE name = '{name}'",
}
NAMES = ["apple", "cherry", "lemon", "banana", "lime", "pear", "plum"]


class Sql(ToolEnv):
    family = "sql"
    system_prompt = "Answer with the number alone. Table: fruit (name, colour, price, stock)."

    def load(self):
        return [
            Task(
                id=f"{name}-{number}",
                family=self.family,
                prompt=question.format(name=name),
                hidden={"sql": sql.format(name=name)},
            )
            for name in NAMES
            for number, (question, sql) in enumerate(QUERIES.items())
        ]

    def start(self, task):
        self.db = sqlite3.connect(":memory:")
        self.db.executescript(SCHEMA)
        self.db.execute("PRAGMA query_only = ON")

    @tool
    def query(self, sql: str) -> str:
        """Runs one SELECT statement and answers with its rows.

        Args:
            sql: the statement.
        """
        try:
            rows = self.db.execute(sql).fetchmany(20)
        except sqlite3.Error as error:
            raise ToolError(str(error)) from None
        return "\n".join(", ".join(map(str, row)) for row in rows) or "no row"

    def score(self, task, submission):
        (right,) = self.db.execute(task.hidden["sql"]).fetchone()
        return submission.strip() == str(right)

    def stop(self):
        self.db.close()

    def gold(self, task):
        db = sqlite3.connect(":memory:")
        db.executescript(SCHEMA)
        (right,) = db.execute(task.hidden["sql"]).fetchone()
        call = ToolCall(name="query", arguments={"sql": task.hidden["sql"]})
        return [Message(role="assistant", content="", calls=(call,)), Message(role="assistant", content=str(right))]
