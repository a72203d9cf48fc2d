"""Wordle: guess a word of five letters in six turns. Multi-turn text: every message is a guess."""

import re

from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message

WORDS = ["apple", "baker", "cabin", "daisy", "eagle", "fable", "giant", "habit", "ideal", "joker", "kayak", "lemon"]


def colors(guess: str, secret: str) -> str:
    """G where the letter is right, Y where the word has it elsewhere, X where it has not (again)."""
    found = ["G" if g == s else "X" for g, s in zip(guess, secret, strict=True)]
    left = [s for s, mark in zip(secret, found, strict=True) if mark != "G"]
    for place, letter in enumerate(guess):
        if found[place] == "X" and letter in left:
            found[place] = "Y"
            left.remove(letter)
    return "".join(found)


class Wordle(ToolEnv):
    """Scored as TextArena's: 1 for the word, else what the last guess was worth: half for a letter elsewhere."""

    family = "wordle"
    system_prompt = "Guess the word of five letters. G: right, Y: elsewhere, X: not in it. Answer with one word."

    def load(self):
        return [Task(id=word, family=self.family, prompt="guess", hidden={"word": word}) for word in WORDS]

    def start(self, task):
        self.guesses, self.marks = 0, ""

    def reply(self, task, message):
        found = re.findall(r"\b[a-z]{5}\b", message.lower())
        self.guesses += 1
        if found:
            self.marks = colors(found[-1], task.hidden["word"])
        shown = self.marks if found else "that is no word of five letters"
        over = self.marks == "GGGGG" or self.guesses == 6
        return Submission(value=self.marks, message=shown) if over else shown

    def score(self, task, submission):
        return (submission.count("G") + submission.count("Y") / 2) / 5

    def gold(self, task):
        return [Message(role="assistant", content=task.hidden["word"])]
