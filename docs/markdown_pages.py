"""The Markdown of the repository's own pages, as reStructuredText."""

import re

RULES = [
    (r"\*\*`([^`]+)`\*\*", r"``\1``"),  # no code inside of bold
    (r"(?<!`)`([^`]+)`(?!`)", r"``\1``"),
    (r"\[([^\]]+)\]\((http[^)]+)\)", r"`\1 <\2>`__"),
    (r"\[([^\]]+)\]\([^)]+\)", r"\1"),  # files of the repository
]


def inline(text):
    """Translate code and links within lines."""
    for pattern, new in RULES:
        text = re.sub(pattern, new, text)
    return text


def as_restructured_text(markdown):
    """Translate headings, code, tables, lists and links; the title is left out."""
    blocks = re.split(r"\n\n+(?=\S|    \S)", markdown.partition("\n")[2].strip())
    lines, fence = [], False
    for block in blocks:
        if fence or block.startswith("```"):
            if not fence:
                language, _, block = block[3:].partition("\n")
                lines += [f".. code-block:: {language or 'text'}", ""]
            fence = not block.rstrip().endswith("```")
            body = block.rstrip().removesuffix("```").rstrip().split("\n")
            lines += [f"    {line}".rstrip() for line in body]
        elif block.startswith("#"):
            marks, _, title = block.partition(" ")
            lines += [inline(title), {2: "-", 3: "~"}[len(marks)] * (2 * len(title))]
        elif block.startswith("|"):
            rows = [row.strip("|").split("|") for row in block.split("\n")]
            lines += [".. list-table::", "    :header-rows: 1", ""]
            for first, *others in (row for row in rows if set(row[0]) - set(" -")):
                lines.append(f"    * - {inline(first.strip())}")
                lines += [f"      - {inline(other.strip())}" for other in others]
        elif block.startswith("    "):
            lines += ["::", "", block]
        else:
            lines.append(inline(block))
        lines.append("")
    return "\n".join(lines)
