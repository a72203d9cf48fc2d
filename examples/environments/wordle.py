"""Wordle: guess a word of five letters in six turns. Multi-turn text: every message is a guess."""

import re

from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.rewards.score import Score

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
    """The score is 1 for the word, less a tenth for each guess after the first; a new green letter earns 0.02."""

    family = "wordle"
    system_prompt = "Guess the word of five letters. G: right, Y: elsewhere, X: not in it. Answer with one word."
    reward_bounds = (0.0, 1.1)

    def load(self):
        return [Task(id=word, family=self.family, prompt="guess", hidden={"word": word}) for word in WORDS]

    def start(self, task):
        self.guesses, self.green = 0, set()

    def reply(self, task, message):
        found = re.findall(r"\b[a-z]{5}\b", message.lower())
        self.guesses += 1
        if not found:
            return self.over("that is no word of five letters")
        marks = colors(found[-1], task.hidden["word"])
        new = {place for place, mark in enumerate(marks) if mark == "G"} - self.green
        self.green |= new
        if new:
            self.reward(0.02 * len(new), "green")
        return Submission(value=True, message=marks) if marks == "GGGGG" else self.over(marks)

    def over(self, shown):
        return Submission(value=False, message=shown) if self.guesses == 6 else shown

    def score(self, task, submission):
        value = 1.0 - 0.1 * (self.guesses - 1) if submission else 0.0
        return Score(value=value, passed=submission, breakdown={"word": value})

    def gold(self, task):
        return [Message(role="assistant", content=task.hidden["word"])]
