"""How long a tool's answer may be."""

MAX_ANSWER_CHARS = 65_536


def bounded(text: str, most: int = MAX_ANSWER_CHARS) -> str:
    """Text of about ``most`` characters at most: of longer text its beginning, how much is left out, and its end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
