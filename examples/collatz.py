"""A small program to trace."""


def collatz(n):
    """The numbers from n down to 1 by Collatz' rule."""
    path = [n]
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        path.append(n)
    return path
