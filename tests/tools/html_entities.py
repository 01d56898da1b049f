#!/usr/bin/env python3
"""Makes engine/rewards/html_entities.def, HTML's named character references, from Python's own table (html.entities.html5).

    python html_entities.py engine/rewards/html_entities.def [--check]

--check: says whether the file is what would be written (a test in CI). Needs the standard library.
"""
import sys, unicodedata
from html.entities import html5

HEAD = """/* HTML(name, open, text): `&name;` stands for text; open: `&name` does so too. Sorted by name, in bytes.
 * Made by tests/tools/html_entities.py: the 2231 names of the HTML standard. */
"""


def literal(text):
    plain = all(unicodedata.category(c)[0] in "LNPS" and c not in '"\\' for c in text)
    return f'"{text}"' if plain else '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


def table():
    lines = [""]
    for name in sorted(name[:-1] for name in html5 if name.endswith(";")):
        row = f'HTML({name}, {int(name in html5)}, {literal(html5[name + ";"])})'
        if len(lines[-1]) + 1 + len(row) > 120:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + row
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[2:]:
        sys.exit(0 if open(sys.argv[1], encoding="utf-8").read() == table() else f"{sys.argv[1]} is not what this script makes")
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write(table())
