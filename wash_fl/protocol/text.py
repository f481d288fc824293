"""A stranger's text, made fit for a log."""


def printable(text: str) -> str:
    """Return a stranger's text on one line, without control characters and not too long."""
    return " ".join("".join(each if each.isprintable() else " " for each in text[:1000]).split())[:500]
