"""Tic-tac-toe against another policy, or against itself: ``[families.models] player_1 = "self"``."""

from verigym.envs.adapters.turn_game import Move, TurnGame
from verigym.envs.task import Task
from verigym.model.chat.messages import Message

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]

WINS = (
    ["426", "345", "678", "258", "048", "147", "786", "528"],
    ["426", "147", "258", "624", "825", "246", "528", "174"],
)
"""Of each seat, against who takes the first free square."""


class TicTacToe(TurnGame):
    """A square is a digit; who takes one that is taken loses. A draw is worth 0."""

    family = "tictactoe"

    def load(self):
        return [
            Task(
                id=f"seat-{seat}-{number}", family=self.family, prompt="", metadata={"seat": seat}, hidden={"n": number}
            )
            for number in range(8)
            for seat in (0, 1)
        ]

    def open_game(self, task):
        self.board, self.player, self.result = [str(n) for n in range(9)], 0, None
        return 2

    def next_move(self):
        rows = ["".join(self.board[row : row + 3]) for row in (0, 3, 6)]
        shown = f"You are {'XO'[self.player]}.\n" + "\n".join(rows)
        return Move(player=self.player, shown=shown, over=self.result is not None)

    def play(self, text):
        mark, square = "XO"[self.player], text.strip()[-1:]
        won, lost = ((1.0, -1.0), (-1.0, 1.0)) if self.player == 0 else ((-1.0, 1.0), (1.0, -1.0))
        if square not in self.board or not square.isdigit():
            self.result = lost
            return
        self.board[int(square)] = mark
        if any(all(self.board[one] == mark for one in line) for line in LINES):
            self.result = won
        elif not any(one.isdigit() for one in self.board):
            self.result = (0.0, 0.0)
        self.player = 1 - self.player
        return

    def results(self):
        return self.result

    def stand_in(self, name, messages):
        """Takes the first free square of the board that it sees: for demonstrations."""
        return next(char for char in messages[-1].content.split("\n", 1)[1] if char.isdigit())

    def gold(self, task):
        """Against the stand-in, which takes 0, 1, 2, ... as they are free."""
        return [Message(role="assistant", content=square) for square in WINS[task.metadata["seat"]][task.hidden["n"]]]

    def empty(self, task):
        return [Message(role="assistant", content="")]
