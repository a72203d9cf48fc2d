"""Questions with answers, written for this project, that a policy can be shown before a suite's own: none of a suite's
rows is among them."""

from collections.abc import Mapping, Sequence

Exemplar = tuple[str, str]
"""(question, answer), in the form of the suite's prompts and of what its grader reads."""

_BOX = "\n\nWrap your answer in $\\boxed{}$."

_STORIES: Sequence[Exemplar] = (
    (
        "A gardener plants 7 rows of 12 tulips. A storm breaks 19 of them. How many tulips are left?",
        "The gardener plants 7 * 12 = 84 tulips. After the storm 84 - 19 = 65 are left. The answer is $\\boxed{65}$.",
    ),
    (
        "Mira earns $14 an hour and works 6 hours on Saturday and 4 hours on Sunday. She spends half of it. "
        "How many dollars does she keep?",
        "Mira works 6 + 4 = 10 hours and earns 10 * 14 = 140 dollars. Half of that is 140 / 2 = 70. "
        "The answer is $\\boxed{70}$.",
    ),
    (
        "A bottle holds 750 ml. How many glasses of 125 ml can be filled from 3 such bottles?",
        "Three bottles hold 3 * 750 = 2250 ml. That fills 2250 / 125 = 18 glasses. The answer is $\\boxed{18}$.",
    ),
    (
        "Tom is three times as old as his sister. In 6 years their ages will add up to 44. How old is his sister now?",
        "In 6 years the two are 2 * 6 = 12 years older together, so now their ages add up to 44 - 12 = 32. Tom has "
        "three parts of it and his sister one, so she is 32 / 4 = 8. The answer is $\\boxed{8}$.",
    ),
    (
        "A coat costs $80. Its price is raised by 25%, and then lowered by $30. What does it cost then, in dollars?",
        "A quarter of 80 is 20, so the price becomes 80 + 20 = 100. Lowered by 30 it is 100 - 30 = 70. "
        "The answer is $\\boxed{70}$.",
    ),
    (
        "A school has 5 buses with 36 seats each. 147 children ride to the zoo. How many seats stay empty?",
        "The buses have 5 * 36 = 180 seats. 180 - 147 = 33 stay empty. The answer is $\\boxed{33}$.",
    ),
    (
        "Lena reads 18 pages on the first day and 5 pages more on each day than on the day before. How many has "
        "she read after 4 days?",
        "She reads 18, then 23, 28 and 33 pages. Together 18 + 23 + 28 + 33 = 102. The answer is $\\boxed{102}$.",
    ),
    (
        "A train goes 90 km in the first hour and two thirds of that in each of the next 2 hours. How far does it go, "
        "in km?",
        "Two thirds of 90 are 60. In the next two hours it goes 2 * 60 = 120 km, so 90 + 120 = 210 km in all. "
        "The answer is $\\boxed{210}$.",
    ),
)
_MATHEMATICS: Sequence[Exemplar] = (
    (
        "Find the sum of all real numbers $x$ with $x^2 - 7x + 10 = 0$.",
        "The equation is $(x - 2)(x - 5) = 0$, so $x$ is 2 or 5, and their sum is 7. The answer is $\\boxed{7}$.",
    ),
    (
        "A fair die is thrown twice. What is the probability that the two numbers add up to 5?",
        "Of 36 equally likely pairs (1, 4), (2, 3), (3, 2) and (4, 1) add up to 5. That is $\\frac{4}{36}$. "
        "The answer is $\\boxed{\\frac{1}{9}}$.",
    ),
    (
        "What is the remainder when $3^{20}$ is divided by 8?",
        "Since $3^2 = 9$ leaves 1, so does $3^{20} = (3^2)^{10}$. The answer is $\\boxed{1}$.",
    ),
    (
        "A right triangle has legs of length 9 and 12. What is the length of the altitude to its hypotenuse?",
        "The hypotenuse has length $\\sqrt{81 + 144} = 15$ and the area is 54. The altitude is $2 \\cdot 54 / 15$. "
        "The answer is $\\boxed{\\frac{36}{5}}$.",
    ),
)
_PROGRAMS: Sequence[Exemplar] = (
    (
        "Write a function to count the words of a text that begin with a given letter.\n\nYour code should pass these "
        "tests:\n\nassert count_words('red roses and rain', 'r') == 3\nassert count_words('', 'a') == 0\n"
        "assert count_words('one two', 'x') == 0",
        "```python\ndef count_words(text, letter):\n"
        "    return sum(word.startswith(letter) for word in text.split())\n```",
    ),
    (
        "Write a function to rotate a list to the right by k places.\n\nYour code should pass these tests:\n\n"
        "assert rotate_right([1, 2, 3, 4], 1) == [4, 1, 2, 3]\nassert rotate_right([1, 2, 3], 5) == [2, 3, 1]\n"
        "assert rotate_right([], 2) == []",
        "```python\ndef rotate_right(items, k):\n    if not items:\n        return []\n    k %= len(items)\n"
        "    return items[-k:] + items[:-k] if k else list(items)\n```",
    ),
    (
        "Write a function to find the largest product of two different elements of a list.\n\nYour code should pass "
        "these tests:\n\nassert largest_product([2, 5, 3]) == 15\nassert largest_product([-6, -4, 1]) == 24\n"
        "assert largest_product([0, 7]) == 0",
        "```python\ndef largest_product(numbers):\n    ordered = sorted(numbers)\n"
        "    return max(ordered[0] * ordered[1], ordered[-1] * ordered[-2])\n```",
    ),
)


def _boxed(exemplars: Sequence[Exemplar]) -> Sequence[Exemplar]:
    return tuple((question + _BOX, answer) for question, answer in exemplars)


EXEMPLARS: Mapping[str, Sequence[Exemplar]] = {
    "gsm8k": _boxed(_STORIES),
    "math500": _boxed(_MATHEMATICS),
    "aime24": _boxed(_MATHEMATICS),
    "aime25": _boxed(_MATHEMATICS),
    "mbpp": _PROGRAMS,
}
"""By the name of the suite."""
