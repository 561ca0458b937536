"""A page of which each script writes a section of its own and leaves the others."""

HEAD = """# Tokenizers, compared token for token

Written by three scripts of `tests/external` (see README.md there), each a section. What is compared are the ids that
`luthier tokenizer encode` gives, without the tokens that begin and end a text; a text agrees when all of its ids do.
"""


def write(path, title, text, header, rows):
    """Puts a section with a table into the page: in the place of the old one, or at the end."""
    page = path.read_text() if path.exists() else HEAD
    table = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    table += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    section = f"{title}\n\n{text.strip()}\n\n" + "\n".join(table) + "\n"
    head, *sections = page.split("\n## ")
    places = [place for place, old in enumerate(sections) if old.startswith(f"{title}\n")]
    if places:
        sections[places[0]] = section
    else:
        sections.append(section)
    path.write_text("\n## ".join([head.rstrip("\n") + "\n", *(old.rstrip("\n") + "\n" for old in sections)]))
